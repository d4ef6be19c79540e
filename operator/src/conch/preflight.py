"""Preflight: a process becomes Ready only when it can list the kinds that it watches, and write its Lease.

Without it, a rolling update could replace a working operator by one that has no permissions.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Final

import structlog

from conch.api.child_kinds import OPTIONAL
from conch.api.kinds import Kind
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
    """Return when every request has succeeded; retry those that have not, except where a permission is missing.

    Args:
        server: the connection whose permissions count.
        kinds: listed in each of the namespaces.
        namespaces: empty means all.
        health: not ready while a request fails.
        cluster_kinds: listed in the whole cluster.
        calls: other calls without which the process cannot work, and the kind that each needs; they raise CallError.

    Raises:
        CallError: a permission is missing. The message names the kinds and the remedy.
    """
    checks: list[tuple[Kind, Callable[[], Awaitable[object]]]] = [
        (kind, partial(_check_list, server, kind, namespace)) for kind in kinds for namespace in namespaces or ("",)
    ]
    checks += [(kind, partial(_check_list, server, kind, "")) for kind in cluster_kinds]
    checks += calls
    while True:
        errors = await asyncio.gather(*(_catch_error(check()) for _, check in checks))
        failed = [(kind, error) for (kind, _), error in zip(checks, errors, strict=True) if error is not None]
        if not failed:
            return
        message = _build_message(failed, namespaces)
        if forbidden := [error for _, error in failed if error.code == _FORBIDDEN]:
            raise CallError(_FORBIDDEN, forbidden[0].reason, message)
        checks = [check for check, error in zip(checks, errors, strict=True) if error is not None]
        retry = max(_RETRY_SECONDS, *(error.retry_after or 0.0 for _, error in failed))
        health.set_not_ready(f"waiting: {message}")
        _log.warning("waiting", error=message, retry_seconds=retry)
        await asyncio.sleep(retry)


async def _check_list(server: Server, kind: Kind, namespace: str) -> None:
    """List a kind unless its API is optional and not installed."""
    # The API server answers 403 before 404, so a role may lack an API that the cluster lacks too.
    if kind not in OPTIONAL or await server.serves(kind):
        await server.check_list(kind, namespace)


async def _catch_error(check: Awaitable[object]) -> CallError | None:
    """Return the error of a check; None: it has passed."""
    try:
        await check
    except CallError as error:
        return error
    return None


def _build_message(failed: Sequence[tuple[Kind, CallError]], namespaces: Sequence[str]) -> str:
    """Return one sentence for all kinds: their names, the API server's or the connection's error, the remedy."""
    parts = list(dict.fromkeys(error.message.strip() for _, error in failed))
    if any(error.is_not_found for _, error in failed):
        parts.append(_INSTALL)
    if any(error.code == _FORBIDDEN for _, error in failed):
        parts.append(_GRANT + (", and remove deleted namespaces from watchNamespaces" if namespaces else ""))
    return f"no access to {', '.join(sorted({kind.plural for kind, _ in failed}))}: {'; '.join(parts)}"
