"""Controllers under measurement, as processes: R and the operator."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from tests.bench.figures import Figures, figures_of
from tests.cluster import Cluster
from tests.support.ports import free_port

LOG: Final = Path("build/bench.log")
METRICS_PATH: Final = "/metrics"
START_SECONDS: Final = 60
END_SECONDS: Final = 30
SETTLE_SECONDS: Final = 900
QUIET_SECONDS: Final = 3.0  # without a write, until a controller counts as settled
_EVERY: Final = 0.25  # seconds between two reads of the metrics, which take processor time of the controller
_SAMPLE: Final = re.compile(r"^(conch_\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_READS: Final = ('verb="get"', 'verb="list"', 'verb="watch"', 'verb="discover"')


@dataclass(frozen=True)
class Program:
    """A controller.

    Attributes:
        name: in the table.
        command: its command line.
        ready_port: the environment variable with the port that answers with 200 once it has started.
        ready_path: the URL's path there.
    """

    name: str
    command: tuple[str, ...]
    ready_port: str
    ready_path: str


_MALLOC: Final = re.compile(r"\b(MALLOC_\w+)=(\S+)")
R: Final = Program("R", (sys.executable, "-m", "tests.bench.reference"), "CONCH_METRICS_PORT", METRICS_PATH)
CONCH: Final = Program("conch", (str(Path(sys.executable).with_name("conch")),), "CONCH_PROBE_PORT", "/readyz")


def read_image_settings() -> dict[str, str]:
    """Return the environment variables of the operator's image that concern its memory."""
    return dict(_MALLOC.findall(Path("operator/Dockerfile").read_text()))


class Work(NamedTuple):
    """What a controller has done since its start, by its metrics."""

    reconciles: int
    pending: int  # services in its queue, or in progress
    writes: int

    @classmethod
    def parse(cls, text: str) -> Work:
        """Read a page of metrics.

        >>> Work.parse('''conch_reconciles_total{result="settled"} 3.0
        ... conch_queue_depth 1.0
        ... conch_api_calls_total{code="200",resource="pods",verb="list"} 2.0
        ... conch_api_calls_total{code="200",resource="services",verb="apply"} 7.0''')
        Work(reconciles=3, pending=1, writes=7)
        """
        samples = [(name, labels, int(float(value))) for name, labels, value in _SAMPLE.findall(text)]
        return cls(
            sum(value for name, _, value in samples if name == "conch_reconciles_total"),
            sum(value for name, _, value in samples if name in {"conch_queue_depth", "conch_queue_active"}),
            sum(
                value
                for name, labels, value in samples
                if name == "conch_api_calls_total" and not any(read in labels for read in _READS)
            ),
        )


class Controller:
    """A process of a program. R serves one namespace; the operator serves all."""

    def __init__(self, program: Program, cluster: Cluster, namespace: str, settings: Mapping[str, str]) -> None:
        """Start it, with these environment variables beside its usual ones."""
        environment = {
            **os.environ,
            **read_image_settings(),
            "KUBECONFIG": str(cluster.kubeconfig),
            "CONCH_SERVING_IMAGE": "conch/serving:test",
            "NAMESPACE": namespace,  # R's
            "CONCH_PROBE_PORT": str(free_port()),
            "CONCH_METRICS_PORT": str(free_port()),
            **settings,
        }
        self._program = program
        self._ready_port = environment[program.ready_port]
        self._metrics_port = environment["CONCH_METRICS_PORT"]
        self.started = time.monotonic()
        LOG.parent.mkdir(exist_ok=True)
        with LOG.open("ab") as log:
            self._process = subprocess.Popen(program.command, env=environment, stdout=log, stderr=subprocess.STDOUT)

    @property
    def figures(self) -> Figures:
        """What it has used until now."""
        return figures_of(self._process.pid)

    def check(self) -> None:
        """Return if it runs.

        Raises:
            RuntimeError: it has ended by itself.
        """
        if (code := self._process.poll()) is not None:
            raise RuntimeError(f"{self._program.name} ended by itself with exit code {code}; its output is in {LOG}")

    async def wait_ready(self) -> None:
        """Wait until it has started, or stands by.

        Raises:
            RuntimeError: it has ended by itself.
            TimeoutError: it takes longer than a minute.
        """
        async with asyncio.timeout(START_SECONDS):
            while not await asyncio.to_thread(_read, self._ready_port, self._program.ready_path):
                self.check()
                await asyncio.sleep(_EVERY)

    async def wait_started(self) -> None:
        """Wait until it has started, and has no work; errors as of `wait_ready` and `settle`."""
        await self.wait_ready()
        await self.settle()

    async def read_work(self) -> Work:
        """What it has done until now."""
        return Work.parse(await asyncio.to_thread(_read, self._metrics_port, METRICS_PATH))

    async def settle(self, reconciles: int = 0, seconds: float = 0.0) -> float:
        """Wait until it has worked off its queue, has reconciled so often, and then writes nothing for three seconds.

        Args:
            reconciles: at least so many since the start of the process.
            seconds: how much longer than 15 minutes that may take.

        Returns:
            The moment by `time.monotonic()` at which the three seconds began.

        Raises:
            RuntimeError: it has ended by itself.
            TimeoutError: it is not settled in time.
        """
        writes, since = 0, None
        async with asyncio.timeout(SETTLE_SECONDS + seconds):
            while True:
                self.check()
                now, work = time.monotonic(), await self.read_work()
                if work.writes != writes or work.reconciles < reconciles:
                    writes, since = work.writes, None
                elif since is None:
                    since = None if work.pending else now
                elif now - since >= QUIET_SECONDS:
                    return since
                await asyncio.sleep(_EVERY)

    def end(self) -> None:
        """End it with SIGTERM, or with SIGKILL after 30 seconds."""
        self._process.terminate()
        try:
            self._process.wait(END_SECONDS)
        finally:
            self._process.kill()  # does nothing to a process that has ended
            self._process.wait()


@contextmanager
def running(
    program: Program, cluster: Cluster, namespace: str, settings: Mapping[str, str] | None = None
) -> Iterator[Controller]:
    """A controller that is ended at the end."""
    controller = Controller(program, cluster, namespace, settings or {})
    try:
        yield controller
    finally:
        controller.end()


def _read(port: str, path: str) -> str:
    """Return the body of an answer of this machine; empty: there is none yet, or it is an error."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""
