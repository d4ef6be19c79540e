"""Bodies of server-side apply as bytes.

The API server reads them as YAML (`application/apply-patch+yaml`), and JSON is YAML but for two things: YAML knows
no surrogate pairs, which `json.dumps` writes for characters beyond U+FFFF, and it folds or refuses some characters
that JSON leaves as they are. So characters beyond U+FFFF are UTF-8, and everything else beyond ASCII is escaped.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec

_ESCAPED: Final = re.compile("[\x7f-\uffff]")


def encode(body: Mapping[str, Any]) -> bytes:
    r"""Return a body as JSON that is also valid YAML, for any texts. A lone surrogate becomes U+FFFD, as in Go.

    >>> encode({"é": "😀", "\x85": "\ud83d"}).decode()
    '{"\\u00e9": "😀", "\\u0085": "\\ufffd"}'
    >>> encode({"spec": {"replicas": 1}}).decode()
    '{"spec":{"replicas":1}}'
    """
    with suppress(UnicodeEncodeError):
        text = msgspec.json.encode(body)
        if text.isascii() and b"\x7f" not in text:
            return text
    return _ESCAPED.sub(_escape, json.dumps(body, ensure_ascii=False)).encode()


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return "\\ufffd" if 0xD800 <= code <= 0xDFFF else f"\\u{code:04x}"
