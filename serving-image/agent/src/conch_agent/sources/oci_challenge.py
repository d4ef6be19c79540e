"""What a registry requires of requests: the header `WWW-Authenticate` of RFC 9110, section 11.6.1."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  the grammar's name of a word
_ELEMENT: Final = re.compile(rf'({_TOKEN})(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+)))?')


@dataclass(frozen=True)
class Challenge:
    """A way to authenticate.

    Attributes:
        scheme: Its name in lower case, such as `basic` or `bearer`.
        parameters: Its parameters by name in lower case.
    """

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    r"""Return the challenges of an answer.

    Args:
        headers: The values of its headers `WWW-Authenticate`.

    >>> parse_challenges(['Bearer realm="https://auth.example/token",service="r", Basic realm="a \\"b\\""'])
    ... # doctest: +NORMALIZE_WHITESPACE
    (Challenge(scheme='bearer', parameters={'realm': 'https://auth.example/token', 'service': 'r'}),
     Challenge(scheme='basic', parameters={'realm': 'a "b"'}))
    """
    challenges: list[Challenge] = []
    for header in headers:
        parameters: dict[str, str] = {}
        for element in _ELEMENT.finditer(header):
            name, quoted, plain = element.groups()
            if quoted is None and plain is None:
                parameters = {}
                challenges.append(Challenge(name.lower(), parameters))
            else:
                parameters[name.lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
    return tuple(challenges)
