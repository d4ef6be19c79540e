"""Object versions of a model's files in a bucket with versioning, or the commit of a hub that has them.

A revision's first pod reports them. Its later pods read these versions, also after an upload under the same keys. They
are only the location of the content: the digest decides which content is served.
"""

import json
import re
from typing import Any, Final

LONGEST: Final = 32 * 1024  # bytes of a model's versions as JSON; all annotations of an object may have 256 KiB
_VERSION: Final = re.compile(r"[!-~]{1,1024}")  # S3: at most 1,024 bytes, fit for a URL


def select_recordable(versions: Any) -> dict[str, str]:
    """Return object versions, by path below storageUri; empty where they cannot be recorded.

    They cannot be recorded where there are none, where one is no valid version id, or where they are longer than
    LONGEST. The revision then has its digest only.

    Args:
        versions: Version ids by path, which may come from another writer.

    >>> select_recordable({"model.onnx": "3sL4", "1/a": "null"})
    {'model.onnx': '3sL4', '1/a': 'null'}
    >>> select_recordable({"model.onnx": "two words"}), select_recordable({"a": 1}), select_recordable([])
    ({}, {}, {})
    """
    if not versions or not isinstance(versions, dict):
        return {}
    if not all(isinstance(version, str) and _VERSION.fullmatch(version) for version in versions.values()):
        return {}
    return versions if len(json.dumps(versions)) <= LONGEST else {}
