"""What a server answers beside success, in its own words: the code, the message and the elements that help."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from conch_contract.parsing import parse_json

_LONGEST: Final = 300
_ELEMENT: Final = re.compile(r"<(?:\w+:)?(\w+)(?:\s[^<>]*)?>([^<>]*)</(?:\w+:)?\1\s*>")
_TITLE: Final = re.compile(r"<title[^>]*>(.*?)</title>", re.DOTALL | re.IGNORECASE)
# Elements of an error's body that tell what to change, in the order of their use.
_USEFUL: Final = (
    *("Endpoint", "Region", "ExpectedRegion", "BucketName", "Bucket", "Key", "Resource", "AWSAccessKeyId"),
    *("ArgumentName", "ArgumentValue", "HeaderName", "ServerTime", "RequestTime", "Condition"),
    *("RequestId", "HostId"),
)
_MOST_ELEMENTS: Final = 4


@dataclass(frozen=True)
class Answer:
    """A store's answer other than success: HTTP status and phrase, and what the body says."""

    status: int = 0
    phrase: str = ""
    code: str = ""
    message: str = ""
    elements: Mapping[str, str] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """Code, message and useful elements in one line."""
        told = f"{self.code}: {self.message}" if self.code and self.message else self.code or self.message
        useful = [f"{name} {self.elements[name]}" for name in _USEFUL if self.elements.get(name)][:_MOST_ELEMENTS]
        line = told.rstrip(".") + (f" ({', '.join(useful)})" if useful else "")
        return line or f"HTTP {self.status} {self.phrase}".strip()


def read_body(status: int, phrase: str, body: str) -> Answer:
    """Return what an answer's body says: XML as S3 stores write it, JSON, the title of an HTML page, or plain text."""
    if body.startswith("{"):
        try:
            given = {str(name).lower(): value for name, value in parse_json(body).items()}
        except (ValueError, AttributeError):
            given = {}
        code, message = given.get("code", ""), given.get("message", "") or given.get("error", "")
        if code or message:
            return Answer(status, phrase, one_line(str(code)), one_line(str(message)))
    if title := _TITLE.search(body):
        return Answer(status, phrase, "", one_line(title.group(1)))
    elements = {name: one_line(value) for name, value in _ELEMENT.findall(body) if value.strip()}
    if elements:
        return Answer(status, phrase, elements.get("Code", ""), elements.get("Message", ""), elements)
    return Answer(status, phrase, "", one_line(re.sub(r"<[^>]*>", " ", body)))


def one_line(text: str) -> str:
    """Return a foreign text as one line of bounded length."""
    line = " ".join(html.unescape(text).split())
    printable = "".join(letter if letter.isprintable() else "?" for letter in line)
    return printable if len(printable) <= _LONGEST else f"{printable[:_LONGEST]}..."
