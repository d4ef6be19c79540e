"""Error answers of servers: the code, the message and the useful elements of their bodies."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pydantic import ValidationError

from conch_agent.signed_urls import hide_signatures
from conch_contract.parsing import parse_json

_LONGEST: Final = 300
_READ: Final = 8 * 1024  # characters of a body; regular expressions take the square of the length of some texts
_ELEMENT: Final = re.compile(r"<(?:\w+:)?(\w+)(?:\s[^<>]*)?>([^<>]*)</(?:\w+:)?\1\s*>")
_TITLE: Final = re.compile(r"<title[^<>]*>([^<]*)</title>", re.DOTALL | re.IGNORECASE)
# Elements of an error's body that help to correct it, the most useful ones first.
_USEFUL: Final = (
    *("Endpoint", "Region", "ExpectedRegion", "BucketName", "Bucket", "Key", "Resource", "AWSAccessKeyId"),
    *("ArgumentName", "ArgumentValue", "HeaderName", "ServerTime", "RequestTime", "Condition"),
    *("RequestId", "HostId"),
)
_MOST_ELEMENTS: Final = 4


@dataclass(frozen=True)
class Answer:
    """An error answer of a store: HTTP status and phrase, and code, message and elements of the body."""

    status: int = 0
    phrase: str = ""
    code: str = ""
    message: str = ""
    elements: Mapping[str, str] = field(default_factory=dict)

    @property
    def status_line(self) -> str:
        """Status and phrase, such as `HTTP 404 Not Found`."""
        return f"HTTP {self.status} {self.phrase}".strip()

    @property
    def is_outage(self) -> bool:
        """True if the server has refused nothing: it has a fault, or limits the rate of requests (RFC 9110, 6585)."""
        return self.status >= 500 or self.status in {408, 429}

    @property
    def words(self) -> str:
        """Code, message and useful elements in one line."""
        summary = f"{self.code}: {self.message}" if self.code and self.message else self.code or self.message
        useful = [f"{name} {self.elements[name]}" for name in _USEFUL if self.elements.get(name)][:_MOST_ELEMENTS]
        line = summary.rstrip(".") + (f" ({', '.join(useful)})" if useful else "")
        return line or self.status_line


def read_body(status: int, phrase: str, body: str) -> Answer:
    """Return an error answer.

    Its body may be XML of a store, JSON (also of OAuth: RFC 6749, section 5.2), an HTML page with a title, or plain
    text.

    Args:
        status: The HTTP status.
        phrase: The phrase of the status.
        body: The body, of which the first 8 KiB are read.
    """
    body = body[:_READ]
    if body.startswith("{"):
        try:
            fields = {str(name).lower(): value for name, value in parse_json(body).items()}
        except (ValueError, AttributeError):
            fields = {}
        code = fields.get("code", "")
        message = fields.get("message", "") or fields.get("error_description", "") or fields.get("error", "")
        if code or message:
            return Answer(status, phrase, to_one_line(str(code)), to_one_line(str(message)))
    if title := _TITLE.search(body):
        return Answer(status, phrase, "", to_one_line(title.group(1)))
    elements = {name: to_one_line(value) for name, value in _ELEMENT.findall(body) if value.strip()}
    if elements:
        return Answer(status, phrase, elements.get("Code", ""), elements.get("Message", ""), elements)
    return Answer(status, phrase, "", to_one_line(re.sub(r"<[^<>]*>", " ", body)))


def describe_invalid(body: bytes, error: ValidationError) -> str:
    """Return in one line why an answer is not of the form of an API: the first wrong field, or the title of a page.

    Args:
        body: The answer's body.
        error: The error of its parser.
    """
    if body.lstrip()[:1] == b"<":
        return f"a page: {read_body(200, 'OK', body[:4096].decode(errors='replace')).words}"
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    return to_one_line(f"{field}: {first['msg']}" if field else first["msg"])


def to_one_line(text: str) -> str:
    """Return a foreign text as one line of bounded length, without the queries of signed URLs.

    Args:
        text: The text.

    >>> to_one_line("No access to https://host/m?sp=rl&amp;sig=c2ln to you")
    'No access to https://host/m?... to you'
    """
    line = " ".join(html.unescape(text).split())
    printable = "".join(letter if letter.isprintable() else "?" for letter in hide_signatures(line))
    return printable if len(printable) <= _LONGEST else f"{printable[:_LONGEST]}..."
