"""Clients that wait a second for an answer, and retry when none came: what the loss of a node is to a user.

A request counts as answered when one of its attempts was; how many it took, and how long, is what is measured.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

import numpy as np
import tritonclient.grpc as over_grpc

SECONDS: Final = 1.0  # that an attempt may take
_REST: Final = 0.4  # seconds between an answer and the next request
_STOP_SECONDS: Final = 10.0
_INPUT: Final = np.ones(1, dtype=np.float32)
# Pings find out that the other end of a channel is gone; without them a channel waits for TCP to give up.
_PINGS: Final = {"grpc.keepalive_time_ms": 5_000, "grpc.keepalive_timeout_ms": 2_000}
# Without it all channels of a process to one address share one connection, and one pod.
_OWN_CONNECTION: Final = {"grpc.use_local_subchannel_pool": 1}


@dataclass
class ClientRecord:
    """What one client saw; moments are those of `time.monotonic`."""

    answers: list[tuple[float, float]] = field(default_factory=list)  # when it came; seconds since the first attempt
    failures: list[float] = field(default_factory=list)  # attempts: when they were given up

    @property
    def slowest(self) -> float:
        """The longest that a request took, attempts that failed included."""
        return max((took for _, took in self.answers), default=0.0)

    def quiet(self, seconds: float) -> bool:
        """Whether each attempt of the last seconds was answered, one at least."""
        since = time.monotonic() - seconds
        return all(moment < since for moment in self.failures) and any(moment > since for moment, _ in self.answers)


class Patient:
    """Clients of the model of models/double, each in a thread of its own, from entering `with` to leaving it.

    Three kinds: `http` (a connection for each attempt), `grpc` (a channel with pings), `silent` (one without).
    """

    def __init__(self, http: str, grpc: str, *, count: int = 3) -> None:
        self.records = {kind: [ClientRecord() for _ in range(count)] for kind in ("http", "grpc", "silent")}
        self._stop = threading.Event()
        senders: dict[str, Callable[[], Callable[[], None]]] = {
            "http": lambda: _over_http(http),
            "grpc": lambda: _over_grpc(grpc, _PINGS),
            "silent": lambda: _over_grpc(grpc, {}),
        }
        self._threads = [
            threading.Thread(target=self._send_requests, args=(senders[kind](), record), daemon=True)
            for kind, clients in self.records.items()
            for record in clients
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(_STOP_SECONDS)

    def summary(self, since: float) -> str:
        """Return a line for each kind: its answers and failures after a moment."""
        return "\n".join(f"{kind}: {_summary(clients, since)}" for kind, clients in self.records.items())

    def _send_requests(self, send: Callable[[], None], record: ClientRecord) -> None:
        while not self._stop.wait(_REST):
            began = time.monotonic()
            while not self._stop.is_set():
                try:
                    send()
                except (OSError, http.client.HTTPException, over_grpc.InferenceServerException):
                    record.failures.append(time.monotonic())
                    self._stop.wait(0.1)
                else:
                    record.answers.append((time.monotonic(), time.monotonic() - began))
                    break


def _summary(clients: list[ClientRecord], since: float) -> str:
    answers = [took for record in clients for moment, took in record.answers if moment > since]
    failures = [moment for record in clients for moment in record.failures if moment > since]
    last = f", the last {max(failures) - since:.1f} s after the loss" if failures else ""
    hit = sum(any(moment > since for moment in record.failures) for record in clients)
    return (
        f"{len(answers)} requests answered, the slowest after {max(answers, default=0.0):.1f} s;"
        f" {len(failures)} attempts of {hit} of {len(clients)} clients failed{last}"
    )


def _over_http(address: str) -> Callable[[], None]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}
    body = json.dumps({"inputs": [tensor]})

    def send() -> None:
        connection = http.client.HTTPConnection(address, timeout=SECONDS)
        try:
            connection.request("POST", "/v2/models/double/infer", body)
            answer = connection.getresponse()
            answer.read()
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise http.client.HTTPException(str(answer.status))

    return send


def _over_grpc(address: str, options: Mapping[str, int]) -> Callable[[], None]:
    channel_options = {**_OWN_CONNECTION, **options}
    client = over_grpc.InferenceServerClient(address, channel_args=list(channel_options.items()))
    value = over_grpc.InferInput("x", [1], "FP32")
    value.set_data_from_numpy(_INPUT)

    def send() -> None:
        client.infer("double", [value], client_timeout=SECONDS)

    return send
