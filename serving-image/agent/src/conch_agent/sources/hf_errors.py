"""Error answers of a hub, as failures with a remedy.

The hub names the kind of an error in the header `X-Error-Code` and describes it in `X-Error-Message`. For a repository
that is private it answers as for one that does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.answer import Answer, to_one_line
from conch_agent.sources.hf_uri import HubPath
from conch_agent.sources.retry_after import LONGEST_DELAY, read_delay

ENTRY_NOT_FOUND: Final = "EntryNotFound"
_WRONG_TOKEN: Final = "Invalid credentials in Authorization header"  # noqa: S105  a message, not a token
_DISABLED: Final = "Access to this resource is disabled."


def classify(answer: Answer, headers: Mapping[str, str], uri: str, place: HubPath, endpoint: str) -> Failure:
    """Return the failure of an error answer.

    Args:
        answer: The answer.
        headers: Its headers.
        uri: The storageUri, with which the message begins.
        place: The file or folder of the storageUri.
        endpoint: URL of the hub.
    """
    code, detail = _read_error(headers)
    words = _describe(answer, code, detail)
    if answer.status == 429:
        return _build_rate_limit(headers, uri, endpoint, words)
    if answer.status >= 500:
        message = f"{uri}: the hub at {endpoint} answered {words}. The agent retries; if this stays, see the hub's log."
        return Failure(Reason.FETCH_FAILED, message, is_outage=True)
    if denied := _find_denial(answer.status, code, detail, place, endpoint):
        return Failure(Reason.ACCESS_DENIED, f"{uri}: {denied} ({words}).")
    if missing := _find_missing(answer.status, code, place, endpoint):
        return Failure(Reason.NOT_FOUND, f"{uri}: {missing} ({words}).")
    message = f"{uri}: the server at {endpoint} answered {words}. Correct storageUri, or HF_ENDPOINT in its Secret."
    return Failure(Reason.FETCH_FAILED, message)


def classify_redirected(answer: Answer, headers: Mapping[str, str], uri: str, host: str) -> Failure:
    """Return the failure of an error answer of a server to which the hub redirects.

    Args:
        answer: The answer.
        headers: Its headers.
        uri: The storageUri, with which the message begins.
        host: The server's host.
    """
    message = (
        f"{uri}: the server {host}, to which the hub redirects for its files, answered"
        f" {_describe(answer, *_read_error(headers))}. The agent retries with another redirect of the hub."
    )
    delay = min(read_delay(headers), LONGEST_DELAY)
    return Failure(Reason.FETCH_FAILED, message, delay, is_outage=answer.is_outage)


def _read_error(headers: Mapping[str, str]) -> tuple[str, str]:
    """Return code and message of the hub."""
    return to_one_line(headers.get("X-Error-Code", "")), to_one_line(headers.get("X-Error-Message", ""))


def _describe(answer: Answer, code: str, detail: str) -> str:
    """Return status, code and message in one line."""
    status = answer.status_line
    words = ": ".join(filter(None, (code, detail or answer.message))) or answer.words
    return status if words == status else f"{status}: {words}"


def _find_denial(status: int, code: str, detail: str, place: HubPath, endpoint: str) -> str:
    """Return the denial and its remedy; empty: access is not denied."""
    if code == "GatedRepo":
        return (
            f"the repository {place.repository} is gated. Accept its conditions on {endpoint}/{place.repository}, and"
            " write an access token of that account as HF_TOKEN into the Secret of storage.secretRef"
        )
    if detail == _DISABLED:
        return f"the hub has disabled the repository {place.repository}. Serve another one, or a copy of it"
    if detail == _WRONG_TOKEN:
        return "the hub does not accept HF_TOKEN in the storage Secret. Write a token that is valid"
    if status == 403 or (status == 401 and code not in {"", "RepoNotFound"}):
        return "the hub refused access. Write an HF_TOKEN that may read this repository into the Secret"
    return ""


def _find_missing(status: int, code: str, place: HubPath, endpoint: str) -> str:
    """Return what is missing and the remedy; empty: nothing is."""
    if code == "RevisionNotFound":
        return (
            f"the repository {place.repository} has no branch, tag or commit {place.revision!r}. Correct the revision"
            " after '@' in storageUri"
        )
    if code == ENTRY_NOT_FOUND:
        return (
            f"revision {place.revision!r} of {place.repository} has no file or folder {place.path!r}. Correct the path"
            " in storageUri"
        )
    if status in {401, 404, 410} or code == "RepoNotFound":
        return (
            f"the hub at {endpoint} has no repository {place.repository}, or it is private. Correct storageUri; for a"
            " private repository, write HF_TOKEN into the Secret of storage.secretRef"
        )
    return ""


def _build_rate_limit(headers: Mapping[str, str], uri: str, endpoint: str, words: str) -> Failure:
    delay = min(read_delay(headers), LONGEST_DELAY)
    retry = f"in {delay:.0f} s" if delay else "later"
    message = (
        f"{uri}: the hub at {endpoint} limits the rate of requests ({words}); the agent retries {retry}. An HF_TOKEN in"
        " the storage Secret has a limit of its own, and so has a hub in the cluster."
    )
    return Failure(Reason.FETCH_FAILED, message, delay, is_outage=True)
