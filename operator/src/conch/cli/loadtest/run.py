"""One run: the driver, the samples of the replicas, and the progress reports."""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Iterable, Iterator

from conch.cli.loadtest.driver import Driver
from conch.cli.loadtest.reporter import Reporter
from conch.cli.loadtest.results import ReplicaSample, build_second

_SAMPLE_SECONDS = 1.0
ReadReplicas = Callable[[], Awaitable[tuple[int, int] | None]]


async def run_driver(
    driver: Driver, dues: Iterable[float], read: ReadReplicas, reporter: Reporter
) -> tuple[list[ReplicaSample], bool]:
    """Run the driver until its end or Ctrl-C; return the samples of the replicas, and whether it was interrupted."""
    samples: list[ReplicaSample] = []
    with _stop_on_signal() as stop:
        helpers = [
            asyncio.create_task(_sample(driver, read, samples)),
            asyncio.create_task(_report(driver, samples, reporter)),
        ]
        try:
            await driver.run(dues, stop)
        finally:
            for task in helpers:
                task.cancel()
            await asyncio.wait(helpers)
        for task in helpers:
            if not task.cancelled():
                task.result()  # it only ends by an error
        return samples, stop.is_set()


async def _sample(driver: Driver, read: ReadReplicas, samples: list[ReplicaSample]) -> None:
    """Sample the replicas each second; a failed read leaves a gap."""
    while True:
        began = driver.now
        found = await read()
        if found is not None:
            samples.append(ReplicaSample(driver.now, *found))
        await asyncio.sleep(max(0.0, _SAMPLE_SECONDS - (driver.now - began)))


async def _report(driver: Driver, samples: list[ReplicaSample], reporter: Reporter) -> None:
    scheduled, ended, moment = 0, 0, 0.0
    while True:
        moment += reporter.period
        await asyncio.sleep(max(0.0, moment - driver.now))
        news = driver.outcomes[ended:]
        reporter.report(
            build_second(round(moment), driver.scheduled - scheduled, news, samples[-1] if samples else None),
            driver.in_flight,
        )
        scheduled, ended = driver.scheduled, ended + len(news)


@contextlib.contextmanager
def _stop_on_signal() -> Iterator[asyncio.Event]:
    """Yield an event that the first Ctrl-C sets; a second one ends the program as usual."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def interrupt() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    try:
        loop.add_signal_handler(signal.SIGINT, interrupt)
        loop.add_signal_handler(signal.SIGTERM, stop.set)
    except (NotImplementedError, RuntimeError, ValueError):  # not on this system, or not in its main thread
        yield stop
        return
    try:
        yield stop
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        loop.remove_signal_handler(signal.SIGTERM)
