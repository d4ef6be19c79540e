"""The client of Triton's control protocol, over gRPC and with the control key.

HTTP is not used: a load over HTTP occupies an event thread of the front end until the model is ready, and all
connections of that thread stall for the whole load.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.grpc.model_config_pb2 import ModelConfig
from tritonclient.grpc.service_pb2 import ModelStatistics
from tritonclient.utils import InferenceServerException

from conch_agent.config import CONTENT_PARAMETER
from conch_contract import names

LONGEST_MESSAGE: Final = 2000  # characters of its messages in a report
HEADER: Final = f"triton-grpc-protocol-{names.CONTROL_HEADER}"
_READ_TIMEOUT: Final = 5.0
_LOAD_TIMEOUT: Final = 3600.0
# Triton closes connections by age, every few seconds. A read that loses its connection is sent again, since the pod
# would otherwise leave the endpoints for a moment. A load is not: it may have begun. (gRPC proposal A6.)
_RETRYABLE_METHODS: Final = ("RepositoryIndex", "ModelConfig", "ModelStatistics", "TraceSetting")
_RETRIES: Final = {
    "methodConfig": [
        {
            "name": [{"service": "inference.GRPCInferenceService", "method": method} for method in _RETRYABLE_METHODS],
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
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.enable_http_proxy", 0),
)
# Not of a connection without the key: Triton refuses a restricted call with UNAVAILABLE, too.
_RETRYING: Final = ("grpc.service_config", json.dumps(_RETRIES))
# Statuses of the transport. All others are Triton's.
_TRANSPORT: Final = ("StatusCode.UNAVAILABLE", "StatusCode.CANCELLED", "StatusCode.DEADLINE_EXCEEDED")
_RESTRICTED: Final = "is restricted"


class TritonUnavailableError(Exception):
    """Triton does not answer: it has not started yet, it restarts, or it closed the connection by age."""


class ConnectionLostError(TritonUnavailableError):
    """The connection of a request ended, each time that the request was sent."""


class TritonError(Exception):
    """Triton answered with an error; the text is Triton's message."""


@dataclass(frozen=True)
class Version:
    """A version in the repository index.

    Attributes:
        version: Number of the version.
        state: READY, LOADING, UNLOADING, UNAVAILABLE, or empty: this process has never loaded it. During a reload a
            READY version stays READY until the new one replaces it.
        reason: Triton's message about the state.
    """

    version: int
    state: str
    reason: str


RepositoryIndex = Mapping[str, tuple[Version, ...]]
"""The versions of each model."""


class Triton:
    """A connection to the Triton of this pod."""

    def __init__(self, address: str, key: str | None) -> None:
        options = [*_CHANNEL, _RETRYING] if key else list(_CHANNEL)
        self._client: Any = InferenceServerClient(address, channel_args=options)
        self._headers = {HEADER: key} if key else None
        self._loads: dict[str, asyncio.Task[None]] = {}  # by name of the model, until Triton answers

    async def read_index(self) -> RepositoryIndex:
        """Return the models of the repository with their versions."""
        answer = await self._call(self._client.get_model_repository_index, client_timeout=_READ_TIMEOUT)
        index: dict[str, tuple[Version, ...]] = {}
        for entry in answer.models:
            version = Version(int(entry.version or 0), entry.state, entry.reason)
            index[entry.name] = (*index.get(entry.name, ()), version)
        return index

    async def load(self, name: str) -> None:
        """Load or reload a model, and wait until it is ready. Triton goes on with a load whose client is cancelled.

        Args:
            name: The model's name.

        Raises:
            TritonError: The load failed.
            TritonUnavailableError: The answer is lost.
        """
        task = asyncio.create_task(self._call(self._client.load_model, name, client_timeout=_LOAD_TIMEOUT))
        self._loads[name] = task
        task.add_done_callback(partial(self._forget_load, name))
        await asyncio.shield(task)

    def _forget_load(self, name: str, task: asyncio.Task[None]) -> None:
        if self._loads.get(name) is task:
            del self._loads[name]
        if not task.cancelled():
            task.exception()  # the client may be gone, and asyncio reports an exception that is not read

    def is_loading(self, name: str) -> bool:
        """Return True until Triton has answered the last load of a model.

        Args:
            name: The model's name.
        """
        return name in self._loads

    async def wait_for_load(self, name: str) -> None:
        """Wait until Triton has answered the last load of a model.

        Args:
            name: The model's name.
        """
        if task := self._loads.get(name):
            await asyncio.wait([task])

    async def unload(self, name: str) -> None:
        """Start to unload a model.

        Args:
            name: The model's name.
        """
        await self._call(self._client.unload_model, name, client_timeout=_READ_TIMEOUT)

    async def read_content(self, name: str, version: int) -> str:
        """Return the content identifier in the configuration of a served version; empty where there is none.

        Args:
            name: The model's name.
            version: The version.
        """
        try:
            answer = await self._call(self._client.get_model_config, name, str(version), client_timeout=_READ_TIMEOUT)
        except TritonError:
            return ""
        return str(answer.config.parameters[CONTENT_PARAMETER].string_value)

    async def read_config(self, name: str) -> ModelConfig:
        """Return the configuration of a served model, as Triton has completed it.

        Args:
            name: The model's name.

        Raises:
            TritonError: Triton does not serve the model.
            TritonUnavailableError: The answer is lost.
        """
        answer = await self._call(self._client.get_model_config, name, client_timeout=_READ_TIMEOUT)
        config: ModelConfig = answer.config
        return config

    async def set_trace_rate(self, name: str, rate: int) -> None:
        """Set the rate at which Triton traces a model, until Triton ends; loads do not change it.

        Args:
            name: The model's name.
            rate: Number of requests of which one is traced; 0: none.

        Raises:
            TritonError: Triton refuses it.
            TritonUnavailableError: The answer is lost.
        """
        settings = {"trace_rate": str(rate)} if rate else {"trace_level": "OFF"}
        await self._call(self._client.update_trace_settings, name, settings, client_timeout=_READ_TIMEOUT)

    async def read_last_request_times(self) -> Mapping[str, float]:
        """Return when Triton last answered a request to each model, in seconds since the epoch; 0: never.

        Raises:
            TritonUnavailableError: The answer is lost.
        """
        times: dict[str, float] = {}
        for version in await self._read_statistics():
            times[version.name] = max(times.get(version.name, 0.0), float(version.last_inference) / 1000)
        return times

    async def count_requests(self) -> Mapping[str, int]:
        """Return how many requests Triton has answered, also with an error, since each model that it serves was loaded.

        A request to an ensemble is one to each of its steps, too.

        Raises:
            TritonError: Triton has no statistics.
            TritonUnavailableError: The answer is lost.
        """
        counts: dict[str, int] = {}
        for version in await self._read_statistics():
            statistics = version.inference_stats
            answered = statistics.success.count + statistics.fail.count
            counts[version.name] = counts.get(version.name, 0) + int(answered)
        return counts

    async def _read_statistics(self) -> Iterable[ModelStatistics]:
        """Return the statistics of each version that Triton serves."""
        answer = await self._call(self._client.get_inference_statistics, client_timeout=_READ_TIMEOUT)
        statistics: Iterable[ModelStatistics] = answer.model_stats
        return statistics

    async def probe(self) -> list[str]:
        """Return the kinds of control that Triton allows to this connection; without a key it must be none."""
        calls = {
            "repository index": lambda: self._client.get_model_repository_index(client_timeout=_READ_TIMEOUT),
            "model load": lambda: self._client.load_model("conch-guard", client_timeout=_READ_TIMEOUT),
            "shared memory": lambda: self._client.get_system_shared_memory_status(client_timeout=_READ_TIMEOUT),
            "trace": lambda: self._client.get_trace_settings(client_timeout=_READ_TIMEOUT),
            "logging": lambda: self._client.get_log_settings(client_timeout=_READ_TIMEOUT),
        }
        kinds = []
        for kind, call in calls.items():
            try:
                await self._call(call)
            except TritonError as error:
                if _RESTRICTED in str(error):
                    continue
            kinds.append(kind)
        return kinds

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    async def _call(self, method: Any, *arguments: Any, **options: Any) -> Any:
        """Call a method of Triton's client with the control key, and translate its exceptions."""
        if self._headers:
            options["headers"] = self._headers
        try:
            return await method(*arguments, **options)
        except InferenceServerException as error:
            message = error.message() or str(error)
            if _RESTRICTED not in message and str(error.status()) in _TRANSPORT:
                raise TritonUnavailableError(message) from error
            raise TritonError(message) from error
