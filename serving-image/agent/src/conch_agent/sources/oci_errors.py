"""Error answers of a registry, as failures with a remedy (OCI distribution specification, "Error Codes")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.answer import Answer, read_body, to_one_line
from conch_agent.sources.oci_uri import Artifact
from conch_agent.sources.retry_after import LONGEST_DELAY, read_delay
from conch_contract.parsing import parse_json

_MISSING: Final = {"NAME_UNKNOWN": "repository {name}", "BLOB_UNKNOWN": "content of a file of {label}"}


def read_oci_error(status: int, phrase: str, body: str) -> Answer:
    """Return an error answer with code and message of the first error in its body.

    Args:
        status: The HTTP status.
        phrase: The phrase of the status.
        body: The body.
    """
    try:
        first: Any = parse_json(body)["errors"][0]
        code, message = first["code"], first.get("message", "")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return read_body(status, phrase, body)
    return Answer(status, phrase, to_one_line(str(code)), to_one_line(str(message)))


def classify(answer: Answer, headers: Mapping[str, str], uri: str, artifact: Artifact, login_remedy: str) -> Failure:
    """Return the failure of an error answer.

    Args:
        answer: The answer.
        headers: Its headers.
        uri: The storageUri, with which the message begins.
        artifact: The artifact.
        login_remedy: The remedy for a denial, a sentence without its full stop.
    """
    registry, words = f"the registry {artifact.host}", _describe(answer)
    delay = min(read_delay(headers), LONGEST_DELAY)
    if answer.status in {401, 403}:
        return build_denial(uri, f"{registry} has no repository {artifact.name}, or", answer, login_remedy)
    if answer.status in {404, 410}:
        missing = _MISSING.get(answer.code, "{label}").format(name=artifact.name, label=artifact.label)
        message = f"{uri}: {registry} has no {missing} ({words}). Correct storageUri, or push the model there."
        return Failure(Reason.NOT_FOUND, message)
    if answer.status == 429:
        retry = f"in {delay:.0f} s" if delay else "later"
        message = f"{uri}: {registry} limits the rate of requests ({words}); the agent retries {retry}. {login_remedy}."
        return Failure(Reason.FETCH_FAILED, message, delay, is_outage=True)
    if answer.status >= 500:
        message = f"{uri}: {registry} answered {words}. The agent retries; if this stays, read the registry's log."
        return Failure(Reason.FETCH_FAILED, message, delay, is_outage=True)
    message = f"{uri}: {registry} answered {words}. Correct storageUri; is there a registry at this host and port?"
    return Failure(Reason.FETCH_FAILED, message)


def build_denial(uri: str, server: str, answer: Answer, login_remedy: str) -> Failure:
    """Return the failure of a denial.

    Args:
        uri: The storageUri, with which the message begins.
        server: The server, the subject of the sentence.
        answer: The answer.
        login_remedy: The remedy, a sentence without its full stop.
    """
    message = f"{uri}: {server} refused access ({_describe(answer)}). {login_remedy}."
    return Failure(Reason.ACCESS_DENIED, message)


def classify_redirected(answer: Answer, headers: Mapping[str, str], uri: str, host: str) -> Failure:
    """Return the failure of an error answer of a server to which the registry redirects.

    Args:
        answer: The answer.
        headers: Its headers.
        uri: The storageUri, with which the message begins.
        host: The server's host.
    """
    message = (
        f"{uri}: the server {host}, to which the registry redirects for its files, answered {_describe(answer)}. The"
        " agent retries with another redirect of the registry."
    )
    delay = min(read_delay(headers), LONGEST_DELAY)
    return Failure(Reason.FETCH_FAILED, message, delay, is_outage=answer.is_outage)


def _describe(answer: Answer) -> str:
    """Return status, code and message in one line."""
    status = answer.status_line
    return status if answer.words == status else f"{status}: {answer.words}"
