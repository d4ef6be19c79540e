"""Object versions of a model's files in a bucket with versioning, as text for an annotation.

A revision's first pod reports them. Its later pods read these versions, also after an upload under the same keys. They
are only the location of the content: the digest decides which content is served.
"""

import json
import re
from collections.abc import Mapping
from typing import Final

from conch_contract.parsing import parse_json

LONGEST: Final = 32 * 1024  # bytes of the text; all annotations of an object may have 256 KiB
_VERSION: Final = re.compile(r"[!-~]{1,1024}")  # S3: at most 1,024 bytes, fit for a URL


def encode_versions(versions: Mapping[str, str]) -> str:
    """Return object versions, by path below storageUri, as compact JSON; empty where they cannot be recorded.

    They cannot be recorded where there are none, where one is no valid version id, or where the text is longer than
    LONGEST. The revision then has its digest only.

    Args:
        versions: Version ids by path.

    >>> encode_versions({"model.onnx": "3sL4", "1/a": "null"})
    '{"1/a":"null","model.onnx":"3sL4"}'
    >>> encode_versions({"model.onnx": "two words"})
    ''
    """
    if not versions or not all(_VERSION.fullmatch(version) for version in versions.values()):
        return ""
    text = json.dumps(versions, sort_keys=True, separators=(",", ":"))
    return text if len(text) <= LONGEST else ""


def decode_versions(text: str) -> dict[str, str]:
    """Return the versions of a text of `encode_versions`; empty for any other text.

    Args:
        text: The value of the annotation, which may come from another writer.

    >>> decode_versions('{"a":"3sL4"}'), decode_versions('{"a":1}'), decode_versions("[]"), decode_versions("")
    ({'a': '3sL4'}, {}, {}, {})
    """
    try:
        found = parse_json(text) if len(text) <= LONGEST else None
    except ValueError:
        return {}
    if not isinstance(found, dict) or not all(isinstance(version, str) for version in found.values()):
        return {}
    return found if encode_versions(found) else {}
