"""Bodies of server-side apply as bytes, and bytes of the API server as objects.

The API server reads bodies as YAML (`application/apply-patch+yaml`), and JSON is YAML but for two things: YAML knows
no surrogate pairs, which `json.dumps` writes for characters beyond U+FFFF, and it folds or refuses some characters
that JSON leaves as they are. So characters beyond U+FFFF are UTF-8, and everything else beyond ASCII is escaped.

What it sends is not always JSON by the standard: it stores a field without a type (`data` of a ControllerRevision) as
it came, and does not check its texts. One object of one user must not end the list of all.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec

_ESCAPED: Final = re.compile("[\x7f-\uffff]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


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


def decode(text: bytes | str) -> Any:
    r"""Return the value of JSON of the API server.

    As in Go, U+FFFD stands for bytes that are no UTF-8 and for lone surrogates.

    Raises:
        ValueError: the text is no JSON.
        RecursionError: it is nested deeper than the parser goes.

    >>> decode(b'{"a": "\\ud83d", "b": "\xff", "c": 12}')
    {'a': '�', 'b': '�', 'c': 12}
    """
    try:
        return msgspec.json.decode(text)
    except ValueError:
        value = json.loads(text if isinstance(text, str) else text.decode(errors="replace"))
        return msgspec.json.decode(_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", json.dumps(value, ensure_ascii=False)))


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return "\\ufffd" if 0xD800 <= code <= 0xDFFF else f"\\u{code:04x}"
