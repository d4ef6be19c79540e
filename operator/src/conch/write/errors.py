"""Calls that failed, as values with a sentence: what the API server wrote, or why there is no answer of one."""

import re
from typing import Any, Final

import aiohttp

from conch.api.text import clean
from conch.observe.fields import mapping, mappings
from conch.observe.fields import text as string
from conch_contract.parsing import parse_json

# The reasons of calls that no API server has answered.
UNANSWERED: Final = frozenset({"Unreachable", "NoCredentials", "NotKubernetes"})
_WORDS: Final = 1024  # bytes of an error message
_MOST_READ: Final = 16384  # characters of an answer that may become part of it
_LONGEST_RETRY: Final = 60  # seconds
_CHECK: Final = "is the cluster up, and the address right?"
# How the API server says that the uid of a precondition, or of a manifest, is not that of the object.
_UID: Final = re.compile(r"\bUID\b|uid mismatch")
# What the API server answers with 500 to a body that it will not take the next time either: it is too large, or a
# field is not of the type that its schema has (structured-merge-diff, typed), or of no form that the type reads.
_SCHEMA: Final = "the object does not fit its schema: "
_UNFIT: Final = re.compile(f"request is too large|{_SCHEMA}|to proper version: unable to convert")
# How structured-merge-diff prints a value of a field: "expected string, got &value.valueUnstructured{Value:1}".
_VALUE: Final = re.compile(r"&value\.valueUnstructured\{Value:(.*?)\}")
_TYPED: Final = re.compile(r"failed to create typed patch object \([^)]*\): ")


class CallError(Exception):
    """The API server refused a call, or could not be reached (`code` 0).

    `kind` is the plural of the object that the error is about, `causes` are the details' reasons (metav1.Status).
    """

    def __init__(  # noqa: PLR0917  the fields of a metav1.Status
        self,
        code: int,
        reason: str,
        message: str,
        retry_after: float | None = None,
        kind: str = "",
        causes: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.causes = causes
        self.code = code
        self.reason = reason
        self.message = message
        self.retry_after = retry_after

    @property
    def gone(self) -> bool:
        """Whether the object was not there."""
        return self.code == 404

    @property
    def replaced(self) -> bool:
        """Whether the object of the uid that was named is gone; another one may have its name."""
        return self.code == 409 and _UID.search(self.message) is not None

    @property
    def namespace_gone(self) -> bool:
        """Whether the namespace is deleted, or about to be: nothing can be created in it any more."""
        return (self.gone and self.kind == "namespaces") or "NamespaceTerminating" in self.causes

    @property
    def rejected(self) -> bool:
        """Whether the API server, or an admission policy, does not take this body, however often it is sent."""
        return (
            self.code in {400, 413, 422}
            or (self.code == 403 and "denied the request" in self.message)
            or (self.code == 500 and _UNFIT.search(self.message) is not None)
        )


def read_error(status: int, text: bytes | str) -> CallError:
    """Read a metav1.Status, or what a proxy said instead of one."""
    try:
        body = mapping(parse_json(text))
    except ValueError:
        body = {}
    details = mapping(body.get("details"))
    causes = frozenset(str(cause.get("reason")) for cause in mappings(details.get("causes")))
    words = body.get("message") or (text.decode(errors="replace") if isinstance(text, bytes) else text)
    return CallError(
        status,
        clean(string(body.get("reason")), _WORDS),
        clean(_VALUE.sub(r"\1", _TYPED.sub(_SCHEMA, str(words)[:_MOST_READ])), _WORDS),
        _retry_after(details.get("retryAfterSeconds")),
        string(details.get("kind")),
        causes,
    )


def _retry_after(seconds: object) -> float | None:
    """Return after how many seconds to repeat a request; no answer delays the next attempt for long.

    >>> _retry_after(2), _retry_after(10**400), _retry_after("5"), _retry_after(float("nan")), _retry_after(True)
    (2.0, 60.0, None, None, None)
    """
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not seconds >= 0:
        return None
    return float(min(seconds, _LONGEST_RETRY))


def read_object(host: str, status: int, text: bytes | str) -> dict[str, Any]:
    """Return the object that the API server answered with.

    Raises:
        CallError: whoever answers at that address is no API server.
    """
    try:
        parsed = parse_json(text)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise CallError(0, "NotKubernetes", f"{host} answers with HTTP status {status} and no JSON object; {_CHECK}")
    return parsed


def unanswered(host: str, error: Exception) -> str:
    """Return why there is no answer, without the names of classes that nobody has heard of.

    >>> unanswered("https://10.0.0.1:6443", TimeoutError())
    'the API server at https://10.0.0.1:6443 does not answer in time; is the cluster up, and the address right?'
    """
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        why = f"has a certificate that is not trusted ({clean(str(error.certificate_error), 300)})"
    elif isinstance(error, TimeoutError):
        why = "does not answer in time"
    elif isinstance(error, aiohttp.InvalidURL):
        why = "has no valid address"
    else:
        cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
        words = (cause.strerror if isinstance(cause, OSError) else None) or str(cause) or "the connection broke"
        why = f"does not answer ({clean(words, 300)})"
    return f"the API server at {host} {why}; {_CHECK}"
