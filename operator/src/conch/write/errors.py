"""Failed calls: the error that the API server returned, or the reason why it did not answer."""

import re
from typing import Any, Final

import aiohttp

from conch.api.text import clean
from conch.observe.fields import mapping, mappings
from conch.observe.fields import text as string
from conch.write.encoding import decode
from conch_contract.parsing import parse_json

# Reasons of calls without an answer of an API server.
UNANSWERED: Final = frozenset({"Unreachable", "NoCredentials", "NotKubernetes"})
_WORDS: Final = 1024  # bytes of an error message
_MOST_READ: Final = 16384  # characters of an answer that may become part of it
_LONGEST_RETRY: Final = 60  # seconds
_CHECK: Final = "is the cluster up, and the address right?"
# The API server's message where the uid of a precondition, or of a manifest, is not that of the object.
_UID: Final = re.compile(r"\bUID\b|uid mismatch")
_CHANGED: Final = "the object has been modified"
# Messages with status 500 for a body that the API server never accepts: it is too large, or a
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
    def is_not_found(self) -> bool:
        """Whether the object does not exist."""
        return self.code == 404

    @property
    def is_replaced(self) -> bool:
        """Whether the object of the requested uid is gone; another one may have its name."""
        return self.code == 409 and _UID.search(self.message) is not None

    @property
    def is_changed(self) -> bool:
        """Whether the object has another resourceVersion than the request."""
        return self.code == 409 and _CHANGED in self.message

    @property
    def is_namespace_gone(self) -> bool:
        """Whether the namespace is deleted or terminating: nothing can be created in it."""
        return (self.is_not_found and self.kind == "namespaces") or "NamespaceTerminating" in self.causes

    @property
    def is_rejected(self) -> bool:
        """Whether the API server or an admission policy rejects this body at every attempt."""
        return (
            self.code in {400, 413, 422}
            or (self.code == 403 and "denied the request" in self.message)
            or (self.code == 500 and _UNFIT.search(self.message) is not None)
        )


def read_error(status: int, text: bytes | str) -> CallError:
    """Return the error of a response: of a metav1.Status, or of a proxy's body."""
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
        _read_retry_after(details.get("retryAfterSeconds")),
        string(details.get("kind")),
        causes,
    )


def _read_retry_after(seconds: object) -> float | None:
    """Return the seconds until the next attempt, at most a minute.

    >>> [_read_retry_after(seconds) for seconds in (2, 10**400, "5", float("nan"), True)]
    [2.0, 60.0, None, None, None]
    """
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not seconds >= 0:
        return None
    return float(min(seconds, _LONGEST_RETRY))


def read_object(host: str, status: int, text: bytes | str) -> dict[str, Any]:
    """Return the object in a response of the API server.

    Raises:
        CallError: the server at that address is no API server.
    """
    try:
        parsed = decode(text)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise CallError(0, "NotKubernetes", f"{host} answers with HTTP status {status} and no JSON object; {_CHECK}")
    return parsed


def describe_no_answer(host: str, error: Exception) -> str:
    """Return a message for a call without an answer, without names of Python classes.

    >>> describe_no_answer("https://10.0.0.1:6443", TimeoutError())
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
