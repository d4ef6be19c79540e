"""Reads the Lease of another installation of Conch, which shows whether it is active."""

import json

import structlog

from conch.api.kinds import LEASE, Ref
from conch.observe.installation import NO_LEASE, LeaseRecord, Scope
from conch.write.errors import CallError
from conch.write.server import Server

_FORBIDDEN = 403
_log = structlog.get_logger("conch")


async def read_lease(server: Server, installation: str) -> LeaseRecord | None:
    """Return the Lease of an installation; None if the API server failed."""
    namespace, _, name = installation.partition("/")
    try:
        lease = await server.get(namespace, Ref(LEASE, name)) if namespace and name else None
    except ValueError:
        return NO_LEASE  # no Lease has such a name
    except CallError as error:
        if error.code == _FORBIDDEN:
            return LeaseRecord(exists=True)
        _log.warning("Lease not read", installation=installation, error=error.message)
        return None
    if lease is None:
        return NO_LEASE
    scope = Scope.read(lease["metadata"].get("annotations"))
    return LeaseRecord(exists=True, content=json.dumps(lease.get("spec"), sort_keys=True), scope=scope)
