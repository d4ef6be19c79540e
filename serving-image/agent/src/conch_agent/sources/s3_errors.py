"""Errors of an S3 store: the store's code, message and useful elements, and the remedy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.answer import Answer, read_body, to_one_line
from conch_agent.sources.connection import Problem

_STATUS: Final = re.compile(r"status code: (?P<status>\d{3})(?: (?P<phrase>[^:\n]*))?(?:: (?P<body>.*))?", re.DOTALL)
_DENIED: Final = frozenset(
    {
        "AccessDenied",
        "AccountProblem",
        "AllAccessDisabled",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidSecurity",
        "InvalidToken",
        "NotSignedUp",
        "SignatureDoesNotMatch",
        "Unauthorized",
        "UnauthorizedAccess",
    }
)
_REMEDIES: Final[Mapping[str, str]] = {
    "PermanentRedirect": "Set AWS_REGION, or AWS_ENDPOINT_URL, in the storage Secret to what the store names.",
    "TemporaryRedirect": "The bucket is moving; the agent tries again.",
    "AuthorizationHeaderMalformed": "Set AWS_REGION in the storage Secret to the region that the store names.",
    "IllegalLocationConstraintException": "Set AWS_REGION in the storage Secret to the bucket's region.",
    "RequestTimeTooSkewed": "Correct the clock of the node, or of the store.",
    "RequestExpired": "Correct the clock of the node, or of the store.",
    "SlowDown": "The store limits requests; the agent tries again.",
    "ServiceUnavailable": "The store is overloaded; the agent tries again.",
    "InternalError": "The store has a fault; the agent tries again. Read the store's log.",
    "InvalidObjectState": "The object is archived; restore it, or upload the model again.",
    "InvalidBucketName": "Correct the bucket in storageUri.",
    "NoSuchKey": "Correct storageUri.",
    "MethodNotAllowed": "Does AWS_ENDPOINT_URL name an S3 endpoint? A console often has another port.",
}
NO_S3: Final = "Does AWS_ENDPOINT_URL name an S3 endpoint? A console or a proxy often has another port."


def read_answer(text: str) -> Answer | None:
    """Return the store's answer in the text of the client's error; None where the store did not answer.

    Args:
        text: The text of the error.
    """
    match = _STATUS.search(text.split("\n\nDebug source:", 1)[0])
    if not match:
        return None
    status, phrase = int(match["status"]), (match["phrase"] or "").strip()
    return read_body(status, phrase, (match["body"] or "").strip())


def is_client_error(error: Exception) -> bool:
    """Return True for an error of the client: its own exceptions, OSError, and a panic of its Rust code.

    Args:
        error: The exception.
    """
    return isinstance(error, BaseError | OSError) or type(error).__name__ == "RustPanic"


def build_unreachable(uri: str, endpoint: str, problem: Problem) -> Failure:
    """Return the failure of a connection to a store.

    Args:
        uri: The storageUri, with which the message begins.
        endpoint: AWS_ENDPOINT_URL, or empty.
        problem: The cause.
    """
    where = f" at {endpoint}" if endpoint else ""
    remedy = (
        "Put the issuer's certificate into ca.crt of the storage Secret" if problem.is_untrusted else problem.remedy
    )
    return Failure(Reason.UNREACHABLE, f"{uri}: the store{where} cannot be reached: {problem.cause}. {remedy}.")


def is_transport(error: Exception) -> bool:
    """Return True if the store was not reached: no connection, no TLS, or no complete answer.

    Args:
        error: The client's exception.
    """
    first = str(error).split("\n\nDebug source:", 1)[0]
    return read_answer(first) is None and ("HTTP error" in first or "timed out" in first)


def is_certificate_refusal(error: Exception) -> bool:
    """Return True if the client refused the server's certificate.

    Args:
        error: The client's exception.
    """
    return "InvalidCertificate" in str(error)


def classify(  # noqa: PLR0911  a table: one row, one kind of error
    error: Exception, uri: str, bucket: str, endpoint: str, *, signed: bool = True, unknown: tuple[str, ...] = ()
) -> Failure:
    """Return the failure of the client's error.

    Args:
        error: The client's exception, whose text has the store's answer.
        uri: The storageUri, with which the message begins.
        bucket: The bucket's name.
        endpoint: AWS_ENDPOINT_URL, or empty.
        signed: False if no credentials were sent.
        unknown: The Secret's keys that set nothing.
    """
    text = str(error)
    answer = read_answer(text) or Answer()
    where = f" at {endpoint}" if endpoint else ""
    if answer.code == "NoSuchBucket":
        message = (
            f"{uri}: the bucket {bucket!r} does not exist{where} ({answer.words}). Create it or correct storageUri."
        )
        return Failure(Reason.BUCKET_NOT_FOUND, message)
    denied = isinstance(error, PermissionDeniedError | UnauthenticatedError) or answer.status in {401, 403}
    if answer.code in _DENIED or (denied and answer.code not in _REMEDIES):
        return _build_denied(answer, uri, bucket, where, signed=signed, unknown=unknown)
    if "InvalidPath" in text or "PathSegment" in text or "EmptySegment" in text:
        named = to_one_line(re.sub(r"\n\nDebug source:.*", "", text, flags=re.DOTALL))
        message = f"{uri} holds a name that would leave its folder or is empty in part ({named}). Rename or remove it."
        return Failure(Reason.UNSAFE_PATH, message)
    if "builder error" in text and endpoint.startswith("http://"):
        message = (
            f"{uri}: {endpoint} is plain HTTP. Use https, or allow it with AWS_ALLOW_HTTP=true in the storage Secret."
        )
        return Failure(Reason.INSECURE_ENDPOINT, message)
    if is_transport(error):
        message = (
            f"{uri}: the store{where} cannot be reached ({_read_transport_error(text)}). Check "
            "AWS_ENDPOINT_URL, DNS and network policies."
        )
        return Failure(Reason.UNREACHABLE, message)
    if "Received redirect" in text:
        message = (
            f"{uri}: the store{where} redirects requests for {bucket!r}, as stores do for a bucket of another region. "
            f"{_REMEDIES['PermanentRedirect']}"
        )
        return Failure(Reason.FETCH_FAILED, message)
    if not answer.status:
        message = f"{uri}: the answer of the store{where} cannot be read ({_read_transport_error(text)}). {NO_S3}"
        return Failure(Reason.FETCH_FAILED, message)
    remedy = _REMEDIES.get(answer.code, "" if answer.code else NO_S3)
    status = f"HTTP {answer.status} {answer.phrase}".strip()
    detail = "" if answer.words == status else f" {answer.words}."
    return Failure(Reason.FETCH_FAILED, f"{uri}: the store{where} answered {status}.{detail} {remedy}".strip())


def classify_version(error: Exception, path: str, version: str) -> Failure | None:
    """Return the failure of an object version that cannot be read; None for other errors.

    Stores answer 400 for a version id that is not one of theirs, such as one of a bucket that was copied from another
    store, and 405 for a delete marker.

    Args:
        error: The client's exception.
        path: The path of the file.
        version: The version.
    """
    answer = read_answer(str(error)) or Answer()
    subject = f"version {to_one_line(version)} of {to_one_line(path)}, which this revision serves"
    if isinstance(error, FileNotFoundError) or answer.status in {400, 404, 405}:
        message = (
            f"The bucket no longer has {subject}. Let the bucket's lifecycle rules keep older versions for as long as"
            " revisions serve them."
        )
        return Failure(Reason.NOT_FOUND, message)
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or answer.status in {401, 403}:
        message = (
            f"The store refuses to read {subject}: allow s3:GetObjectVersion to the credentials in the storage Secret,"
            " and the pod fetches it."
        )
        return Failure(Reason.ACCESS_DENIED, message)
    return None


def _build_denied(
    answer: Answer, uri: str, bucket: str, where: str, *, signed: bool, unknown: tuple[str, ...]
) -> Failure:
    words = f" ({answer.words})" if answer.code or answer.message else ""
    if signed:
        remedy = (
            "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the storage Secret, and that they may list and read "
            f"{bucket!r}."
        )
    else:
        has = f" (it has {', '.join(unknown[:8])}, which set nothing)" if unknown else ""
        remedy = (
            "No credentials were sent: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the storage Secret"
            f"{has}, or make {bucket!r} public."
        )
    return Failure(Reason.ACCESS_DENIED, f"{uri}: the store refused access{where}{words}. {remedy}")


def _read_transport_error(text: str) -> str:
    first = text.split("\n\nDebug source:", 1)[0]
    return to_one_line(first.rsplit(" - ", 1)[-1])
