"""How fast models arrive: from a store, beside the programs of others, and from a warm cache.

    python -m tests.bench.models [--output FOLDER]

All runs are in turns on one machine, with one SeaweedFS. A figure is the best of the rounds, and the median.
`sha256sum` alone is what verification costs without a fetch. A start from the cache is the time until a model of these
files is laid out for Triton (P8), and until Triton has answered, beside a Triton that begins with the model laid out
(P12).
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ParamSpec

import click
import obstore
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table

from conch_agent.prepare import Preparation
from conch_agent.settings import Settings
from conch_contract import ModelSource
from tests.bench.fetchers import BUCKET, compute_sums, list_fetchers
from tests.serving.pod import Pod
from tests.serving.store import Store
from tests.serving.test_formats import DOUBLE, X

MIB = 1 << 20
P = ParamSpec("P")


@dataclass(frozen=True)
class Shape:
    """A model: so many files of so many bytes."""

    name: str
    files: int
    size: int

    @property
    def bytes(self) -> int:
        return self.files * self.size


SHAPES = (
    Shape("one file of 1 GiB", 1, 1024 * MIB),
    Shape("8 of 128 MiB", 8, 128 * MIB),
    Shape("1,000 of 64 KiB", 1000, MIB // 16),
)


@dataclass(frozen=True)
class Result:
    """The runs of one program with one model, in seconds."""

    what: str
    model: str
    bytes: int
    seconds: tuple[float, ...]

    @property
    def best(self) -> float:
        return min(self.seconds)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def mib_per_second(self) -> float:
        return self.bytes / MIB / self.best


def measure(run: Callable[P, object], *arguments: P.args, **options: P.kwargs) -> float:
    began = time.monotonic()
    run(*arguments, **options)
    return time.monotonic() - began


def measure_fetches(store: Store, root: Path, shapes: Sequence[Shape], rounds: int) -> list[Result]:
    """Fetch each model with each program, in turns."""
    fetchers, seconds = list_fetchers(store), dict[tuple[str, str], list[float]]()
    for shape in shapes:
        upload(store, root, shape)
    for _ in track(range(rounds), "fetching", transient=True):
        for shape in shapes:
            for fetcher in fetchers:
                folder = root / "fetched"
                shutil.rmtree(folder, ignore_errors=True)
                os.sync()
                taken = measure(fetcher.run, prefix_of(shape), folder)
                seconds.setdefault((fetcher.name, shape.name), []).append(taken)
            seconds.setdefault(("sha256sum", shape.name), []).append(measure(compute_sums, root / "fetched"))
    sizes = {shape.name: shape.bytes for shape in shapes}
    return [Result(what, model, sizes[model], tuple(taken)) for (what, model), taken in seconds.items()]


def prefix_of(shape: Shape) -> str:
    return f"{shape.files}-{shape.size}"


def upload(store: Store, root: Path, shape: Shape) -> None:
    """Put a model of random bytes, which no file system or store can compress or share."""
    file = root / "upload"
    for index in range(shape.files):
        with file.open("wb") as stream:
            for _ in range(0, shape.size, MIB):
                stream.write(os.urandom(min(MIB, shape.size)))
        with file.open("rb") as stream:
            obstore.put(store.bucket(BUCKET), f"{prefix_of(shape)}/{index}.bin", stream)


def measure_warm_starts(store: Store, root: Path, shape: Shape, rounds: int) -> list[Result]:
    """Start pods of one model from a warm cache."""
    upload(store, root, shape)
    store.put(BUCKET, {f"{prefix_of(shape)}/model.py": DOUBLE.encode(), f"{prefix_of(shape)}/factor.py": b"FACTOR = 2"})
    source = ModelSource(name="m", format="python", storage_uri=f"s3://{BUCKET}/{prefix_of(shape)}")
    (root / "claim").mkdir()
    cold = make_pod(store, root)
    digest = asyncio.run(Preparation(source, Settings(root=cold.root)).prepare(None)).digest
    pinned = source.model_copy(update={"digest": digest})
    laid_out, answered, alone = list[float](), list[float](), list[float]()
    for _ in track(range(rounds), "starting", transient=True):
        settings = Settings(root=make_pod(store, root).root)
        laid_out.append(measure(lambda s=settings: asyncio.run(Preparation(pinned, s).prepare(None))))  # type: ignore[misc]
        pod = make_pod(store, root)
        pod.write_manifest(pinned)
        answered.append(measure(lambda p=pod: start(p)))  # type: ignore[misc]
        pod.stop()
        alone.append(measure(lambda p=pod: start_alone(p)))  # type: ignore[misc]
        pod.stop()
    figures = {"laid out": laid_out, "answered": answered, "Triton alone, answered": alone}
    return [Result(f"warm cache: {what}", shape.name, shape.bytes, tuple(taken)) for what, taken in figures.items()]


def make_pod(store: Store, root: Path) -> Pod:
    """Make a pod that mounts the claim; it runs nothing yet."""
    pod = Pod(Path(tempfile.mkdtemp(prefix="pod-", dir=root)))
    (pod.root / "cache").symlink_to(root / "claim")
    for folder in (pod.repository, pod.downloads):
        folder.mkdir(parents=True)
    pod.write_secret(store.secret)
    return pod


def start(pod: Pod) -> None:
    """Start a pod, and wait for an answer. The agent is one that imports its libraries, as in a cluster."""
    pod.start(str(Path(sys.executable).with_name("conch-agent")))
    pod.until_ready()
    assert pod.infer("m", X)["y"] == [3.0, 4.0]


def start_alone(pod: Pod) -> None:
    """Start Triton without an agent on what the agent has laid out, and wait for an answer."""
    pod.start_triton("--load-model=m", restricted=False)
    while True:
        try:
            assert pod.infer("m", X)["y"] == [3.0, 4.0]
        except OSError:
            time.sleep(0.02)
        else:
            return


def draw_table(results: Sequence[Result]) -> Table:
    """Return the results as a table."""
    table = Table("model", "what", "best", "median", "MiB/s")
    for each in sorted(results, key=lambda result: (result.model, result.what)):
        table.add_row(
            each.model, each.what, f"{each.best:.3f} s", f"{each.median:.3f} s", f"{each.mib_per_second:,.0f}"
        )
    return table


def draw_picture(results: Sequence[Result], file: Path) -> None:
    """Draw the speed of each program for each model."""
    fetches = [each for each in results if "warm" not in each.what]
    models, programs = sorted({each.model for each in fetches}), sorted({each.what for each in fetches})
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    for number, program in enumerate(programs):
        speeds = {each.model: each.mib_per_second for each in fetches if each.what == program}
        places = [index + number / (len(programs) + 1) for index in range(len(models))]
        axes.bar(places, [speeds.get(model, 0) for model in models], 1 / (len(programs) + 1), label=program)
    axes.set_xticks([index + (len(programs) - 1) / (len(programs) + 1) / 2 for index in range(len(models))], models)
    axes.set_ylabel("MiB/s, best run")
    axes.legend()
    figure.savefig(file, dpi=120)


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Runs of each program with each model.")
@click.option(
    "--warm-mib", default=2048, show_default=True, help="Size of the model that starts from the cache, in MiB."
)
@click.option(
    "--output", type=click.Path(file_okay=False, path_type=Path), help="Folder for models.json and models.png."
)
def main(rounds: int, warm_mib: int, output: Path | None) -> None:
    """Measure, and print a table."""
    with tempfile.TemporaryDirectory(prefix="conch-bench-") as folder:
        root = Path(folder)
        store = Store(root / "store")
        try:
            results = measure_fetches(store, root, SHAPES, rounds)
            results += measure_warm_starts(store, root, Shape("warm", 1, warm_mib * MIB), rounds)
        finally:
            store.process.kill()
    Console().print(draw_table(results))
    if output:
        output.mkdir(parents=True, exist_ok=True)
        (output / "models.json").write_text(json.dumps([asdict(each) for each in results], indent=1) + "\n")
        draw_picture(results, output / "models.png")


if __name__ == "__main__":
    main()
