"""The client of Triton's control protocol, over gRPC and with the control key.

HTTP is not used: a load over HTTP occupies an event thread of the front end until the model is ready, and all
connections of that thread stall for the whole load.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from grpc import StatusCode
from grpc.aio import AioRpcError, insecure_channel
from tritonclient.grpc.model_config_pb2 import ModelConfig
from tritonclient.grpc.service_pb2 import (
    LogSettingsRequest,
    ModelConfigRequest,
    ModelStatistics,
    ModelStatisticsRequest,
    RepositoryIndexRequest,
    RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest,
    SystemSharedMemoryStatusRequest,
    TraceSettingRequest,
)
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from conch_agent.config import CONTENT_PARAMETER
from conch_contract import names

LONGEST_MESSAGE: Final = 2000  # characters of its messages in a report
HEADER: Final = f"triton-grpc-protocol-{names.CONTROL_HEADER}"
_READ_TIMEOUT: Final = 5.0
_LOAD_TIMEOUT: Final = 3600.0
# Triton closes connections by age, every few seconds. A read that loses its connection is sent again, since the pod
# would otherwise leave the endpoints for a moment. A load is not: it may have begun. (gRPC proposal A6.)
_LOST: Final = ("UNAVAILABLE",)
_RETRYABLE_METHODS: Final = {
    "ModelConfig": _LOST,
    "ModelStatistics": _LOST,
    "TraceSetting": _LOST,
    # INTERNAL: a folder of another model has left the repository while Triton listed it.
    "RepositoryIndex": (*_LOST, "INTERNAL"),
}
_RETRIES: Final = {
    "methodConfig": [
        {
            "name": [{"service": "inference.GRPCInferenceService", "method": method}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": list(codes),
            },
        }
        for method, codes in _RETRYABLE_METHODS.items()
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
_TRANSPORT: Final = (StatusCode.UNAVAILABLE, StatusCode.CANCELLED, StatusCode.DEADLINE_EXCEEDED)
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
        self._channel = insecure_channel(address, options)
        self._service: Any = GRPCInferenceServiceStub(self._channel)
        self._metadata = ((HEADER, key),) if key else ()
        self._loads: dict[str, asyncio.Task[None]] = {}  # by name of the model, until Triton answers

    async def read_index(self) -> RepositoryIndex:
        """Return the models of the repository with their versions."""
        answer = await self._call(self._service.RepositoryIndex, RepositoryIndexRequest())
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
        request = RepositoryModelLoadRequest(model_name=name)
        task = asyncio.create_task(self._call(self._service.RepositoryModelLoad, request, _LOAD_TIMEOUT))
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
        await self._call(self._service.RepositoryModelUnload, RepositoryModelUnloadRequest(model_name=name))

    async def read_content(self, name: str, version: int) -> str:
        """Return the content identifier in the configuration of a served version; empty where there is none.

        Args:
            name: The model's name.
            version: The version.
        """
        try:
            answer = await self._read_config(name, str(version))
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
        config: ModelConfig = (await self._read_config(name)).config
        return config

    async def _read_config(self, name: str, version: str = "") -> Any:
        return await self._call(self._service.ModelConfig, ModelConfigRequest(name=name, version=version))

    async def set_trace_rate(self, name: str, rate: int) -> None:
        """Set the rate at which Triton traces a model, until Triton ends; loads do not change it.

        Args:
            name: The model's name.
            rate: Number of requests of which one is traced; 0: none.

        Raises:
            TritonError: Triton refuses it.
            TritonUnavailableError: The answer is lost.
        """
        setting, value = ("trace_rate", str(rate)) if rate else ("trace_level", "OFF")
        values = {setting: TraceSettingRequest.SettingValue(value=[value])}
        await self._call(self._service.TraceSetting, TraceSettingRequest(model_name=name, settings=values))

    async def read_last_request_times(self) -> Mapping[str, Sequence[float]]:
        """Return when Triton last answered a request to each version of a model, in seconds since the epoch; 0: never.

        Raises:
            TritonUnavailableError: The answer is lost.
        """
        times: dict[str, list[float]] = {}
        for version in await self._read_statistics():
            times.setdefault(version.name, []).append(float(version.last_inference) / 1000)
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
        answer = await self._call(self._service.ModelStatistics, ModelStatisticsRequest())
        statistics: Iterable[ModelStatistics] = answer.model_stats
        return statistics

    async def probe(self) -> list[str]:
        """Return the kinds of control that Triton allows to this connection; without a key it must be none."""
        service = self._service
        calls = {
            "repository index": (service.RepositoryIndex, RepositoryIndexRequest()),
            "model load": (service.RepositoryModelLoad, RepositoryModelLoadRequest(model_name="conch-guard")),
            "shared memory": (service.SystemSharedMemoryStatus, SystemSharedMemoryStatusRequest()),
            "trace": (service.TraceSetting, TraceSettingRequest()),
            "logging": (service.LogSettings, LogSettingsRequest()),
        }
        kinds = []
        for kind, (method, request) in calls.items():
            try:
                await self._call(method, request)
            except TritonError as error:
                if _RESTRICTED in str(error):
                    continue
            kinds.append(kind)
        return kinds

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def _call(self, method: Any, request: Any, seconds: float = _READ_TIMEOUT) -> Any:
        """Call a method of Triton with the control key, and translate its errors."""
        try:
            return await method(request, metadata=self._metadata, timeout=seconds)
        except AioRpcError as error:
            message = error.details() or str(error)
            if _RESTRICTED not in message and error.code() in _TRANSPORT:
                raise TritonUnavailableError(message) from error
            raise TritonError(message) from error
