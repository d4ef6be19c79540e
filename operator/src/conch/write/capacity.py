"""Reads what GPUs the cluster has: nodes, all pods that hold some, and quotas of namespaces. Nothing is written.

Pods come page by page, and of each only what it holds is kept: a cluster may have a hundred thousand of them.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import structlog

from conch.api.kinds import NODE, POD, RESOURCE_QUOTA
from conch.observe.capacity import Allocation, Capacity
from conch.write.errors import CallError
from conch.write.lists import Listing, each
from conch.write.server import Server

# A pod that is on no node holds none, and one that has ended has let go.
_BOUND: Final = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"
_FORBIDDEN: Final = 403
_log = structlog.get_logger("conch")


async def look(server: Server, namespaces: Iterable[str]) -> Mapping[str, Capacity]:
    """Return what there is for each of these namespaces; a right that is not there makes it unknown.

    Raises:
        CallError: the API server failed; try again later.
    """
    try:
        nodes = [node async for node in each(server, Listing(NODE))]
        bound = Listing(POD, fields=_BOUND)
        allocations = [
            allocation async for pod in each(server, bound) if (allocation := Allocation.of(pod)) is not None
        ]
        quotas = {name: [quota async for quota in each(server, Listing(RESOURCE_QUOTA, name))] for name in namespaces}
        return {name: Capacity.of(nodes, allocations, found) for name, found in quotas.items()}
    except CallError as error:
        if error.code != _FORBIDDEN:
            raise
        return dict.fromkeys(namespaces, Capacity(unknown=error.message))


async def look_if_it_can(server: Server, namespaces: Iterable[str]) -> Mapping[str, Capacity]:
    """Return the same; nothing where the API server fails, so that whoever waits is told at the next look."""
    try:
        return await look(server, namespaces)
    except CallError as error:
        _log.warning("cannot tell what GPUs there are", error=error.message)
        return {}
