"""One run: the driver, the looks at the replicas beside it, and what is told meanwhile."""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Iterable, Iterator

from conch.cli.loadtest.driver import Driver
from conch.cli.loadtest.reporter import Telling
from conch.cli.loadtest.results import Seen, row

_LOOK_SECONDS = 1.0
Look = Callable[[], Awaitable[tuple[int, int] | None]]


async def run(driver: Driver, dues: Iterable[float], look: Look, telling: Telling) -> tuple[list[Seen], bool]:
    """Drive to the end, or until Ctrl-C; return the replicas that were seen, and whether it was cut short."""
    seen: list[Seen] = []
    with _stopped_by_hand() as stop:
        beside = [asyncio.create_task(_watch(driver, look, seen)), asyncio.create_task(_tell(driver, seen, telling))]
        try:
            await driver.run(dues, stop)
        finally:
            for task in beside:
                task.cancel()
            await asyncio.wait(beside)
        for task in beside:
            if not task.cancelled():
                task.result()  # it never ends by itself, but by an error
        return seen, stop.is_set()


async def _watch(driver: Driver, look: Look, seen: list[Seen]) -> None:
    """Look at the replicas each second; a look that fails leaves a gap."""
    while True:
        began = driver.now
        found = await look()
        if found is not None:
            seen.append(Seen(driver.now, *found))
        await asyncio.sleep(max(0.0, _LOOK_SECONDS - (driver.now - began)))


async def _tell(driver: Driver, seen: list[Seen], telling: Telling) -> None:
    asked, ended, moment = 0, 0, 0.0
    while True:
        moment += telling.every
        await asyncio.sleep(max(0.0, moment - driver.now))
        news = driver.outcomes[ended:]
        telling.tell(row(round(moment), driver.asked - asked, news, seen[-1] if seen else None), driver.in_flight)
        asked, ended = driver.asked, ended + len(news)


@contextlib.contextmanager
def _stopped_by_hand() -> Iterator[asyncio.Event]:
    """Yield what the first Ctrl-C sets; a second one ends the program as usual."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def once() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    try:
        loop.add_signal_handler(signal.SIGINT, once)
        loop.add_signal_handler(signal.SIGTERM, stop.set)
    except (NotImplementedError, RuntimeError, ValueError):  # not on this system, or not in its main thread
        yield stop
        return
    try:
        yield stop
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        loop.remove_signal_handler(signal.SIGTERM)
