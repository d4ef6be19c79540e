"""Preflight: a process becomes Ready, and replaces one that works, only when it can list what it watches and can lead.

Kopf retries a list that is forbidden for a minute, and then ends the process with a traceback.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final

import structlog

from conch.api.kinds import OPTIONAL, Kind
from conch.telemetry import Health
from conch.write import CallError, Server

_FORBIDDEN: Final = 403
_RETRY_SECONDS: Final = 2.0
_INSTALL: Final = "install the CustomResourceDefinitions of the folder crds"
_GRANT: Final = "grant the permissions of the Helm chart"
_log = structlog.get_logger("conch")


async def check_permissions(
    server: Server,
    kinds: Iterable[Kind],
    namespaces: Sequence[str],
    health: Health,
    *,
    cluster_kinds: Iterable[Kind] = (),
    calls: Iterable[tuple[Kind, Callable[[], Awaitable[object]]]] = (),
) -> None:
    """Return when the API server has answered every request; retry those that it has not.

    Args:
        server: the connection whose permissions count.
        kinds: listed in each of the namespaces.
        namespaces: empty means all.
        health: not ready while a request fails.
        cluster_kinds: listed in the whole cluster.
        calls: other calls without which the process cannot work, and the kind that each needs; they raise CallError.

    Raises:
        CallError: a permission or a CustomResourceDefinition is missing. The message names the kinds and the remedy.
    """
    targets = [(kind, namespace) for kind in kinds for namespace in namespaces or ("",)]
    targets += [(kind, "") for kind in cluster_kinds]
    calls = tuple(calls)
    while True:
        checks = [(kind, _error_of(_check_list(server, kind, namespace))) for kind, namespace in targets]
        checks += [(kind, _error_of(call())) for kind, call in calls]
        errors = await asyncio.gather(*(check for _, check in checks))
        failed = [(kind, error) for (kind, _), error in zip(checks, errors, strict=True) if error is not None]
        missing = [(kind, error) for kind, error in failed if _is_missing(kind, error)]
        if missing:
            raise _summary(missing, namespaces)
        if not failed:
            return
        error = failed[0][1]
        retry = max(_RETRY_SECONDS, error.retry_after or 0.0)
        health.hindered(f"waiting for the API server: {error.message}")
        _log.warning("permissions not checked", code=error.code, error=error.message, retry_seconds=retry)
        await asyncio.sleep(retry)


async def _check_list(server: Server, kind: Kind, namespace: str) -> None:
    """List a kind unless its API is optional and not installed."""
    # The API server answers 403 before 404, so a role may lack an API that the cluster lacks too.
    if kind not in OPTIONAL or await server.serves(kind):
        await server.check_list(kind, namespace)


async def _error_of(check: Awaitable[object]) -> CallError | None:
    """Return the error of a check; None: it has passed."""
    try:
        await check
    except CallError as error:
        return error
    return None


def _is_missing(kind: Kind, error: CallError) -> bool:
    """Whether only an administrator can mend it."""
    return error.code == _FORBIDDEN or (error.gone and kind not in OPTIONAL)


def _summary(missing: Sequence[tuple[Kind, CallError]], namespaces: Sequence[str]) -> CallError:
    """Return one error for all kinds, with the API server's first message about each."""
    messages: Mapping[str, str] = {kind.plural: error.message.strip() for kind, error in reversed(missing)}
    kinds = sorted(messages)
    remedies = []
    if any(error.gone for _, error in missing):
        remedies.append(_INSTALL)
    if any(error.code == _FORBIDDEN for _, error in missing):
        remedies.append(_GRANT + (", and remove deleted namespaces from watchNamespaces" if namespaces else ""))
    first = missing[0][1]
    details = "; ".join(messages[kind] for kind in kinds)
    return CallError(first.code, first.reason, f"no access to {', '.join(kinds)}: {details}; {'; '.join(remedies)}")
