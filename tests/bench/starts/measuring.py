"""Pods that start at once: agents as processes, a store behind a line, and what they read from where."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.progress import track

from conch_contract import ModelSource, ModelState
from tests.bench.fetchers import BUCKET
from tests.bench.models import MIB, Shape, prefix_of, upload
from tests.serving.pod import Pod
from tests.serving.processes import until
from tests.serving.store import Store
from tests.serving.test_formats import DOUBLE
from tests.support.relay import Relay

SIZES: Final = (16, 64, 256, 1024)  # MiB
WAYS: Final = ("alone", "peers", "claim")


@dataclass(frozen=True)
class Start:
    """Pods that have started at the same time.

    Attributes:
        way: One of WAYS; `peer`, `warm claim`: one pod, beside one that has the files, or with a claim that has them.
        pods: Their number.
        mib: Size of the model in MiB.
        seconds: Until all had the model laid out.
        from_store: Bytes that the store has sent.
        from_pods: Bytes that they have sent each other.
    """

    way: str
    pods: int
    mib: int
    seconds: float
    from_store: int
    from_pods: int


class Bench:
    """A store with models behind a line."""

    def __init__(self, root: Path, store: Store, rate: int) -> None:
        self._root = root
        self._store = store
        self._pods: list[Pod] = []
        self.line = Relay(store.port, rate=rate * MIB)

    def upload(self, mib: int) -> ModelSource:
        """Put a model into the store, and return it."""
        shape = Shape("model", 1, mib * MIB)
        upload(self._store, self._root, shape)
        files = {"model.py": DOUBLE.encode(), "factor.py": b"FACTOR = 2"}
        self._store.put(BUCKET, {f"{prefix_of(shape)}/{name}": content for name, content in files.items()})
        return ModelSource(name="m", format="python", storage_uri=f"s3://{BUCKET}/{prefix_of(shape)}")

    def make_pods(self, count: int, claim: Path | None = None) -> list[Pod]:
        """Return pods that have not started."""
        pods = [Pod(Path(tempfile.mkdtemp(prefix="pod-", dir=self._root))) for _ in range(count)]
        self._pods += pods
        for pod in pods:
            pod.write_secret({**self._store.secret, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.line.port}"})
            if claim:
                (pod.root / "cache").symlink_to(claim)
        return pods

    def close(self) -> None:
        """End all agents, and the store."""
        stop(self._pods)
        self.line.close()
        self._store.process.kill()

    def start(self, way: str, model: ModelSource, mib: int, pods: Sequence[Pod], peers: Sequence[Pod] = ()) -> Start:
        """Start pods, and wait until each has its model."""
        self.line.passed = 0
        flags = [f"--peer=127.0.0.1:{pod.port}" for pod in peers]
        for pod in pods:
            pod.start_agent(*flags)
        began = time.monotonic()
        for pod in pods:
            pod.write_manifest(model)
        for pod in pods:
            until(lambda pod=pod: pod.model().state == ModelState.LOADING, "it is laid out", pod.agent, 900)  # type: ignore[misc]
        seconds = time.monotonic() - began
        sent = sum(int(pod.read_agent_metrics()['conch_model_peer_bytes_total{model="m"}']) for pod in pods)
        return Start(way, len(pods), mib, seconds, self.line.passed, sent)


def measure_fleets(bench: Bench, count: int, mib: int) -> list[Start]:
    """Start so many pods at once, in each of the ways."""
    model, found = bench.upload(mib), list[Start]()
    for way in track(WAYS, f"{count} pods", transient=True):
        with tempfile.TemporaryDirectory() as claim:
            pods = bench.make_pods(count, Path(claim) if way == "claim" else None)
            found.append(bench.start(way, model, mib, pods, pods if way == "peers" else ()))
            stop(pods)
    return found


def measure_sizes(bench: Bench) -> list[Start]:
    """Start one pod of each size: alone, beside one that has the files, and from a claim that has them."""
    found = list[Start]()
    for mib in track(SIZES, "sizes", transient=True):
        model = bench.upload(mib)
        alone, first, second = bench.make_pods(3)
        found.append(bench.start("alone", model, mib, [alone]))
        bench.start("peers", model, mib, [first], [first, second])
        found.append(bench.start("peer", model, mib, [second], [first, second]))
        with tempfile.TemporaryDirectory() as claim:
            cold, warm = bench.make_pods(2, Path(claim))
            bench.start("claim", model, mib, [cold])
            digest = until(lambda pod=cold: pod.model().digest, "its digest is known")  # type: ignore[misc]
            found.append(bench.start("warm claim", model.model_copy(update={"digest": digest}), mib, [warm]))
            stop([alone, first, second, cold, warm])
    return found


def stop(pods: Sequence[Pod]) -> None:
    for pod in pods:
        pod.stop()
