"""Reads the GPU capacity of the cluster: nodes, all pods with GPUs, and quotas of namespaces.

Pods are read page by page, and only their GPUs are kept: a cluster may have a hundred thousand pods.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import structlog

from conch.api.kinds import NODE, POD, RESOURCE_QUOTA
from conch.observe.capacity import Allocation, Capacity
from conch.write.errors import CallError
from conch.write.lists import Listing, list_objects
from conch.write.server import Server

# Pods without a node, and completed pods, have no GPUs.
_BOUND: Final = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"
_FORBIDDEN: Final = 403
_log = structlog.get_logger("conch")


async def read_capacities(server: Server, namespaces: Iterable[str]) -> Mapping[str, Capacity]:
    """Return the capacity for each of these namespaces; unknown where a permission is missing.

    Raises:
        CallError: the API server failed; retry later.
    """
    try:
        nodes = [node async for node in list_objects(server, Listing(NODE))]
        bound = Listing(POD, fields=_BOUND)
        allocations = [found async for pod in list_objects(server, bound) if (found := Allocation.of(pod)) is not None]
        quotas = {
            name: [quota async for quota in list_objects(server, Listing(RESOURCE_QUOTA, name))] for name in namespaces
        }
        return {name: Capacity.of(nodes, allocations, found) for name, found in quotas.items()}
    except CallError as error:
        if error.code != _FORBIDDEN:
            raise
        return dict.fromkeys(namespaces, Capacity(unknown=error.message))


async def try_read_capacities(server: Server, namespaces: Iterable[str]) -> Mapping[str, Capacity]:
    """Return the capacities of `read_capacities`; an empty mapping where the API server fails."""
    try:
        return await read_capacities(server, namespaces)
    except CallError as error:
        _log.warning("GPU capacity not read", error=error.message)
        return {}
