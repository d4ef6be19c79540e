"""How long new pods wait for their model: each for itself, from a claim, and from each other.

    python -m tests.bench.starts [--pods 50] [--mib 128] [--line 120] [--output FOLDER]

Agents are processes on this machine, without Triton; a pod's time begins with its manifest, when the agent is live,
and ends when the model is laid out. The store is
SeaweedFS behind a line of so many MiB/s for all of them, as a store or its network has a limit; what pods send each
other passes over loopback.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import click
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table

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
        first, second = bench.make_pods(2)
        found.append(bench.start("alone", model, mib, [first]))
        found.append(bench.start("peer", model, mib, [second], [first, second]))
        with tempfile.TemporaryDirectory() as claim:
            cold, warm = bench.make_pods(2, Path(claim))
            bench.start("claim", model, mib, [cold])
            digest = until(lambda pod=cold: pod.model().digest, "its digest is known")  # type: ignore[misc]
            found.append(bench.start("warm claim", model.model_copy(update={"digest": digest}), mib, [warm]))
            stop([first, second, cold, warm])
    return found


def stop(pods: Sequence[Pod]) -> None:
    for pod in pods:
        pod.stop()


def draw_table(starts: Sequence[Start]) -> Table:
    """Return the starts as a table."""
    table = Table("pods", "MiB", "way", "seconds", "MiB from the store", "MiB from pods")
    for each in starts:
        amounts = (f"{amount / MIB:,.0f}" for amount in (each.from_store, each.from_pods))
        table.add_row(str(each.pods), f"{each.mib:,}", each.way, f"{each.seconds:.1f}", *amounts)
    return table


def draw_picture(starts: Sequence[Start], file: Path) -> None:
    """Draw the time of one pod over the size of its model."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for way in dict.fromkeys(each.way for each in starts):
        line = [(each.mib, each.seconds) for each in starts if each.way == way]
        axes.plot(*zip(*line, strict=True), marker="o", label=way)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("MiB of the model")
    axes.set_ylabel("seconds from the manifest")
    axes.legend()
    figure.savefig(file, dpi=120)


@click.command()
@click.option("--pods", default=50, show_default=True, help="Pods that start at once.")
@click.option("--mib", default=128, show_default=True, help="Size of their model.")
@click.option("--line", default=120, show_default=True, help="What the store sends in all, in MiB a second.")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), help="Folder for starts.json, starts.png.")
def main(pods: int, mib: int, line: int, output: Path | None) -> None:
    """Measure, and print two tables."""
    with tempfile.TemporaryDirectory(prefix="conch-bench-") as folder:
        store = Store(Path(folder) / "store")
        bench = Bench(Path(folder), store, line)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no agent is left
        try:
            sizes, fleets = measure_sizes(bench), measure_fleets(bench, pods, mib)
        finally:
            bench.close()
    for starts in (sizes, fleets):
        Console().print(draw_table(starts))
    if output:
        output.mkdir(parents=True, exist_ok=True)
        found = [asdict(each) for each in (*sizes, *fleets)]
        (output / "starts.json").write_text(json.dumps(found, indent=1) + "\n")
        draw_picture(sizes, output / "starts.png")


if __name__ == "__main__":
    main()
