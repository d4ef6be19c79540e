"""Errors of an object store: the store's code, message and useful elements, and the remedy."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.answer import Answer, read_body, to_one_line
from conch_agent.sources.base import build_unsafe

_LONGEST: Final = 64 * 1024  # characters of an error's text, which has the whole body of the store's answer
_STATUS: Final = re.compile(r"status code: (?P<status>\d{3})(?: (?P<phrase>[^:\n]*))?(?:: (?P<body>.*))?", re.DOTALL)
# The client's words about a key that it refuses to list.
_BAD_KEY: Final = re.compile(
    r'Path "(.*?)"(?:: Encountered illegal character| contained empty path segment)', re.DOTALL
)


def read_details(answer: Answer) -> str:
    """Return the details of an answer that refuses access, beside its message.

    Args:
        answer: The answer.
    """
    return answer.elements.get("Details", "")


@dataclass(frozen=True)
class StoreTerms:
    """Codes and names of one kind of object store, for the messages of its errors.

    Attributes:
        endpoint_key: The Secret's key of the endpoint.
        credentials: The Secret's keys of the credentials, in words.
        rights: What the credentials need, which the bucket's name follows in a sentence.
        version_permission: What reading an object version needs.
        keep_versions: What keeps older versions of objects, a sentence.
        no_bucket: Codes of a bucket that does not exist.
        denied: Codes of refused credentials.
        remedies: Remedies by code, or by HTTP status for answers without a code. That of a code in `denied` takes the
            place of the remedy for refused credentials.
        wrong_endpoint: The remedy for an answer that is not such a store's.
        wrong_region: The remedy for a bucket of another region.
        origin: Where these credentials are.
        noun: The store's word for a bucket.
        unknown_host: The remedy for a host name of the provider that cannot be resolved, a sentence without its full
            stop; empty: that of other hosts.
        read_details: Returns the details of an answer that refuses access.
    """

    endpoint_key: str
    credentials: str
    rights: str
    version_permission: str
    keep_versions: str
    no_bucket: frozenset[str]
    denied: frozenset[str]
    remedies: Mapping[str, str]
    wrong_endpoint: str
    wrong_region: str
    origin: str = "in the storage Secret"
    noun: str = "bucket"
    unknown_host: str = ""
    read_details: Callable[[Answer], str] = read_details

    def offer_identity(self, key: str) -> StoreTerms:
        """Return the terms for requests that have no credentials although the pod has an identity.

        Args:
            key: The Secret's key without which the store gets none of the identity's.
        """
        return replace(self, credentials=f"{key} for the identity of the pod, or {self.credentials}")


@dataclass(frozen=True)
class Target:
    """The bucket that was read, and how.

    Attributes:
        uri: The storageUri, with which messages begin.
        bucket: The bucket's name.
        endpoint: The URL of the endpoint that the Secret names, or empty.
        is_signed: False if no credentials were sent.
        unknown: The Secret's keys that set nothing.
    """

    uri: str
    bucket: str
    endpoint: str
    is_signed: bool = True
    unknown: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """The endpoint, which continues a sentence; empty for the provider's own."""
        return f" at {self.endpoint}" if self.endpoint else ""


def read_answer(text: str) -> Answer | None:
    """Return the store's answer in the text of the client's error; None where the store did not answer.

    Args:
        text: The text of the error.
    """
    match = _STATUS.search(text[:_LONGEST].split("\n\nDebug source:", 1)[0])
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


def classify(error: Exception, target: Target, terms: StoreTerms) -> Failure:
    """Return the failure of the client's error.

    Args:
        error: The client's exception, whose text has the store's answer.
        target: The bucket.
        terms: Codes and names of its kind of store.
    """
    text = str(error)
    answer = read_answer(text) or Answer()
    uri, where = target.uri, target.where
    if answer.code in terms.no_bucket:
        message = (
            f"{uri}: the {terms.noun} {target.bucket!r} does not exist{where} ({answer.words}). Create it or correct "
            "storageUri."
        )
        return Failure(Reason.BUCKET_NOT_FOUND, message)
    if answer.code in terms.denied or (_is_denied(error, answer) and answer.code not in terms.remedies):
        return _build_denied(answer, target, terms)
    if found := _BAD_KEY.search(text):
        return build_unsafe(found[1], uri)
    if "Received redirect" in text:
        message = (
            f"{uri}: the store{where} redirects requests for {target.bucket!r}, as stores do for a bucket of another "
            f"region. {terms.wrong_region}"
        )
        return Failure(Reason.FETCH_FAILED, message)
    if not answer.status:
        cause = to_one_line(text.split("\n\nDebug source:", 1)[0].rsplit(" - ", 1)[-1])
        message = f"{uri}: the answer of the store{where} cannot be read ({cause}). {terms.wrong_endpoint}"
        return Failure(Reason.FETCH_FAILED, message)
    remedy = terms.remedies.get(answer.code or str(answer.status), "" if answer.code else terms.wrong_endpoint)
    status = answer.status_line
    detail = "" if answer.words == status else f" {answer.words}."
    message = f"{uri}: the store{where} answered {status}.{detail} {remedy}".strip()
    return Failure(Reason.FETCH_FAILED, message, is_outage=answer.is_outage)


def classify_version(error: Exception, path: str, version: str, terms: StoreTerms) -> Failure | None:
    """Return the failure of an object version that cannot be read; None for other errors.

    Stores answer 400 for a version id that is not one of theirs, such as one of a bucket that was copied from another
    store, and 405 for a delete marker.

    Args:
        error: The client's exception.
        path: The path of the file.
        version: The version.
        terms: Codes and names of the kind of store.
    """
    answer = read_answer(str(error)) or Answer()
    subject = f"version {to_one_line(version)} of {to_one_line(path)}, which this revision serves"
    if isinstance(error, FileNotFoundError) or answer.status in {400, 404, 405}:
        return Failure(Reason.NOT_FOUND, f"The {terms.noun} no longer has {subject}. {terms.keep_versions}")
    if _is_denied(error, answer):
        message = (
            f"The store refuses to read {subject}: allow {terms.version_permission} to the credentials {terms.origin}, "
            "and the pod fetches it."
        )
        return Failure(Reason.ACCESS_DENIED, message)
    return None


def _is_denied(error: Exception, answer: Answer) -> bool:
    return isinstance(error, PermissionDeniedError | UnauthenticatedError) or answer.status in {401, 403}


def _build_denied(answer: Answer, target: Target, terms: StoreTerms) -> Failure:
    parts = (answer.words if answer.code or answer.message else "", terms.read_details(answer).rstrip("."))
    words = f" ({'; '.join(part for part in parts if part)})" if any(parts) else ""
    if answer.code in terms.remedies:
        remedy = terms.remedies[answer.code]
    elif target.is_signed:
        remedy = f"Check {terms.credentials} {terms.origin}, and that {terms.rights} {target.bucket!r}."
    else:
        has = f" (it has {', '.join(target.unknown[:8])}, which set nothing)" if target.unknown else ""
        remedy = (
            f"No credentials were sent: set {terms.credentials} in the storage Secret{has}, or make {target.bucket!r} "
            "public."
        )
    message = f"{target.uri}: the store refused access{target.where}{words}. {remedy}"
    return Failure(Reason.ACCESS_DENIED, message)
