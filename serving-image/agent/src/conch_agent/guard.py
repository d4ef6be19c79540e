"""Verification that Triton's control endpoints are closed to requests without the control key.

A flag that is missing, misspelt or dropped by a newer Triton would open load, unload, shared memory, trace and logging
to all clients of the Service. So no model is loaded before Triton has refused a request of each kind.
"""

from __future__ import annotations

from http.client import HTTPConnection, HTTPException
from typing import Final
from urllib.parse import urlsplit

from conch_agent.reasons import Failure, Reason
from conch_agent.threads import run_in_thread
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
_SECONDS: Final = 5.0  # for each step of a request
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
    kinds += [f"{kind} over HTTP" for kind in await run_in_thread(_probe_http, http_root)]
    if kinds:
        message = (
            f"Triton's control is open to everyone ({', '.join(kinds)}); nothing is loaded. Start it with "
            f"--http-restricted-api and --grpc-restricted-protocol={','.join(names.RESTRICTED_APIS)}:"
            f"{names.CONTROL_HEADER}=KEY."
        )
        raise Failure(Reason.CONTROL_OPEN, message)


def _probe_http(root: str) -> list[str]:
    """Return the kinds of control that Triton allows without the key over HTTP."""
    kinds = []
    connection = HTTPConnection(urlsplit(root).netloc, timeout=_SECONDS)  # aiohttp takes longer to import
    try:
        for kind, method, path in _REQUESTS:
            connection.request(method, path)
            answer = connection.getresponse()
            answer.read()
            if answer.status not in _REFUSAL_STATUSES:
                kinds.append(kind)
    except (OSError, HTTPException) as error:
        raise TritonUnavailableError(str(error)) from error
    finally:
        connection.close()
    return kinds
