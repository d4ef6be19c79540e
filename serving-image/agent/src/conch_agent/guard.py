"""Verification that Triton's control endpoints are closed to requests without the control key.

A flag that is missing, misspelt or dropped by a newer Triton would open load, unload, shared memory, trace and logging
to all clients of the Service. So no model is loaded before Triton has refused a request of each kind.
"""

from __future__ import annotations

from typing import Final

import aiohttp

from conch_agent.reasons import Failure, Reason
from conch_agent.triton import Triton, TritonUnavailableError
from conch_contract import names

# A harmless request of each kind; if load is open, it fails because there is no such model.
_REQUESTS: Final = (
    ("repository index", "POST", "/v2/repository/index"),
    ("model load", "POST", "/v2/repository/models/conch-guard/load"),
    ("shared memory", "GET", "/v2/systemsharedmemory/status"),
    ("trace", "GET", "/v2/trace/setting"),
    ("logging", "GET", "/v2/logging"),
)
_TIMEOUT: Final = aiohttp.ClientTimeout(total=5)
_REFUSAL_STATUSES: Final = frozenset({401, 403})


async def verify_control_closed(grpc_address: str, http_root: str) -> None:
    """Verify that Triton refuses each kind of control without the key, over gRPC and HTTP.

    Args:
        grpc_address: Address of Triton's gRPC API.
        http_root: Root of Triton's HTTP API.

    Raises:
        Failure: ControlOpen, if Triton allows a kind of control.
        TritonUnavailableError: Triton does not answer.
    """
    client = Triton(grpc_address, None)
    try:
        kinds = [f"{kind} over gRPC" for kind in await client.probe()]
    finally:
        await client.close()
    kinds += [f"{kind} over HTTP" for kind in await _probe_http(http_root)]
    if kinds:
        message = (
            f"Triton's control is open to everyone ({', '.join(kinds)}); nothing is loaded. Start it with "
            f"--http-restricted-api and --grpc-restricted-protocol={','.join(names.RESTRICTED_APIS)}:"
            f"{names.CONTROL_HEADER}=KEY."
        )
        raise Failure(Reason.CONTROL_OPEN, message)


async def _probe_http(root: str) -> list[str]:
    """Return the kinds of control that Triton allows without the key over HTTP."""
    kinds = []
    try:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
            for kind, method, path in _REQUESTS:
                async with session.request(method, root + path) as answer:
                    if answer.status not in _REFUSAL_STATUSES:
                        kinds.append(kind)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise TritonUnavailableError(str(error)) from error
    return kinds
