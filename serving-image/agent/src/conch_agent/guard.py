"""The proof that Triton's control endpoints are closed to whoever lacks the key.

A flag that was forgotten, misspelt or dropped by a newer Triton would open load, unload, shared memory,
trace and logging to everyone who reaches the Service. So nothing is loaded before they were seen to refuse.
"""

from __future__ import annotations

from typing import Final

import aiohttp

from conch_agent.reasons import Failure, Reason
from conch_agent.triton import Triton, TritonGone
from conch_contract import names

# One harmless call a kind; an open load answers an error about a model that does not exist.
_HTTP: Final = (
    ("repository index", "POST", "/v2/repository/index"),
    ("model load", "POST", "/v2/repository/models/conch-guard/load"),
    ("shared memory", "GET", "/v2/systemsharedmemory/status"),
    ("trace", "GET", "/v2/trace/setting"),
    ("logging", "GET", "/v2/logging"),
)
_TIMEOUT: Final = aiohttp.ClientTimeout(total=5)
_REFUSED: Final = frozenset({401, 403})


async def prove_closed(grpc_address: str, http_root: str) -> None:
    """Return when every kind of control is refused without the key, over gRPC and HTTP.

    Raises Failure(ControlOpen) where one is not, TritonGone where Triton cannot be asked.
    """
    stranger = Triton(grpc_address, None)
    try:
        allowed = [f"{kind} over gRPC" for kind in await stranger.probe()]
    finally:
        await stranger.close()
    allowed += [f"{kind} over HTTP" for kind in await _over_http(http_root)]
    if allowed:
        message = (
            f"Triton's control is open to everyone ({', '.join(allowed)}); nothing is loaded. Start it with "
            f"--http-restricted-api and --grpc-restricted-protocol={','.join(names.RESTRICTED)}:"
            f"{names.CONTROL_HEADER}=KEY."
        )
        raise Failure(Reason.CONTROL_OPEN, message)


async def _over_http(root: str) -> list[str]:
    allowed = []
    try:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
            for kind, method, path in _HTTP:
                async with session.request(method, root + path) as answer:
                    if answer.status not in _REFUSED:
                        allowed.append(kind)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise TritonGone(str(error)) from error
    return allowed
