"""Triton's control protocol, over gRPC and with the key.

Never over HTTP: its load call occupies an event thread of the front end until the model is up, and every
connection that shares the thread stalls for the whole load.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from conch_agent.config import CONTENT
from conch_contract import names

HEADER: Final = f"triton-grpc-protocol-{names.CONTROL_HEADER}"
_LOOK_TIMEOUT: Final = 5.0
_LOAD_TIMEOUT: Final = 3600.0
# Triton ends each connection for its age, every few seconds. A question that is under way then is asked again: for a
# moment without an answer the pod would leave the endpoints. Not a load: it may have begun. (gRPC proposal A6.)
_QUESTIONS: Final = ("RepositoryIndex", "ModelConfig")
_RETRIES: Final = {
    "methodConfig": [
        {
            "name": [{"service": "inference.GRPCInferenceService", "method": method} for method in _QUESTIONS],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
_CHANNEL: Final = (
    ("grpc.service_config", json.dumps(_RETRIES)),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.enable_http_proxy", 0),
)
# What the transport says, as opposed to what Triton says about a model.
_TRANSPORT: Final = ("StatusCode.UNAVAILABLE", "StatusCode.CANCELLED", "StatusCode.DEADLINE_EXCEEDED")
_RESTRICTED: Final = "is restricted"


class TritonGone(Exception):  # noqa: N818  a state of the world, told to whoever asked
    """Triton does not answer: not started yet, restarting, or the connection was closed for its age."""


class ConnectionLost(TritonGone):
    """A connection ended under a request, each time that the request was sent."""


class Refused(Exception):  # noqa: N818  as above
    """Triton answered, and said no; the text is its own."""


@dataclass(frozen=True)
class Version:
    """A version in the repository index.

    `state` is READY, LOADING, UNLOADING, UNAVAILABLE, or empty: never loaded by this process. A READY version
    that is loaded anew stays READY until the new one has taken over.
    """

    version: int
    state: str
    reason: str


View = Mapping[str, tuple[Version, ...]]


class Triton:
    """A connection to the Triton of this pod."""

    def __init__(self, address: str, key: str | None) -> None:
        self._client: Any = InferenceServerClient(address, channel_args=list(_CHANNEL))
        self._headers = {HEADER: key} if key else None

    async def index(self) -> View:
        """Return every model of the repository with its versions."""
        answer = await self._ask(self._client.get_model_repository_index, client_timeout=_LOOK_TIMEOUT)
        view: dict[str, tuple[Version, ...]] = {}
        for entry in answer.models:
            version = Version(int(entry.version or 0), entry.state, entry.reason)
            view[entry.name] = (*view.get(entry.name, ()), version)
        return view

    async def load(self, name: str) -> None:
        """Load or reload; returns when it is up, raises Refused with Triton's words when it is not."""
        await self._ask(self._client.load_model, name, client_timeout=_LOAD_TIMEOUT)

    async def unload(self, name: str) -> None:
        """Unload; returns when that has begun."""
        await self._ask(self._client.unload_model, name, client_timeout=_LOOK_TIMEOUT)

    async def content(self, name: str, version: int) -> str:
        """Return what the configuration that a version serves by says of its content; empty if nothing."""
        try:
            answer = await self._ask(self._client.get_model_config, name, str(version), client_timeout=_LOOK_TIMEOUT)
        except Refused:
            return ""
        return str(answer.config.parameters[CONTENT].string_value)

    async def probe(self) -> list[str]:
        """Return which kinds of control this connection may use; asked without a key, it shall be none."""
        asked = {
            "repository index": lambda: self._client.get_model_repository_index(client_timeout=_LOOK_TIMEOUT),
            "model load": lambda: self._client.load_model("conch-guard", client_timeout=_LOOK_TIMEOUT),
            "shared memory": lambda: self._client.get_system_shared_memory_status(client_timeout=_LOOK_TIMEOUT),
            "trace": lambda: self._client.get_trace_settings(client_timeout=_LOOK_TIMEOUT),
            "logging": lambda: self._client.get_log_settings(client_timeout=_LOOK_TIMEOUT),
        }
        allowed = []
        for kind, ask in asked.items():
            try:
                await self._ask(ask)
            except Refused as refusal:
                if _RESTRICTED in str(refusal):
                    continue
            allowed.append(kind)
        return allowed

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    async def _ask(self, call: Any, *arguments: Any, **options: Any) -> Any:
        if self._headers:
            options["headers"] = self._headers
        try:
            return await call(*arguments, **options)
        except InferenceServerException as error:
            message = error.message() or str(error)
            if _RESTRICTED not in message and str(error.status()) in _TRANSPORT:
                raise TritonGone(message) from error
            raise Refused(message) from error
