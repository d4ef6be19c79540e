"""Versions of a model's objects in a bucket with versioning, as a text that fits into an annotation.

A revision's first pod reports them, and its later pods read those versions, whatever has been uploaded since. They
only say where the content is: the digest decides what is served.
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

    They cannot where there are none, where one is no version's name, or where the text would be too long: then the
    revision has its digest alone.

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
    """Return what `encode_versions` made a text of; nothing where it did not make this text.

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
