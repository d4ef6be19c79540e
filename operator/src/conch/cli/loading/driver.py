"""The open loop: each request is started when it is due, whatever became of those before."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from conch.cli.loading.tally import Outcome

# A request that could not be started so many seconds after it was due is not sent any more.
PATIENCE: Final = 1.0
IN_FLIGHT: Final = "as many requests as --concurrency allows were in flight"
CLIENT: Final = "this client was behind its schedule"
_LOOK: Final = 0.1  # seconds between looks at whether to stop
_LONGEST: Final = 300


class Driver:
    """One run. What it has seen so far may be read at any time, in the order of the ends."""

    def __init__(self, send: Callable[[], Awaitable[object]], concurrency: int) -> None:
        self.outcomes: list[Outcome] = []
        self.asked = 0  # that were due by now
        self._send = send
        self._slots = asyncio.Semaphore(concurrency)
        self._began = 0.0

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return asyncio.get_running_loop().time() - self._began

    @property
    def in_flight(self) -> int:
        """Requests due and not ended."""
        return self.asked - len(self.outcomes)

    async def run(self, dues: Iterable[float], stop: asyncio.Event) -> None:
        """Start the requests by the clock, and return when all that were started have ended.

        `dues` ascend, in seconds from now. What is due after `stop` is set is not asked.
        """
        self._began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as requests:
            for due in dues:
                if not await self._until(due, stop):
                    return
                self.asked += 1
                if await self._slot(due):
                    requests.create_task(self._one(due))

    async def _until(self, due: float, stop: asyncio.Event) -> bool:
        """Wait for the moment; False: stop. The others get their turn even where there is nothing to wait for."""
        await asyncio.sleep(0)
        while not stop.is_set():
            left = due - self.now
            if left <= 0:
                return True
            await asyncio.sleep(min(left, _LOOK))
        return False

    async def _slot(self, due: float) -> bool:
        """Take a slot; where there is none in time, note a late request."""
        latest = due + PATIENCE
        if self.now <= latest:
            try:
                async with asyncio.timeout_at(self._began + latest):
                    await self._slots.acquire()
            except TimeoutError:
                pass
            else:
                return True
        why = IN_FLIGHT if self._slots.locked() else CLIENT
        self.outcomes.append(Outcome(due, due, self.now, "late", why))
        return False

    async def _one(self, due: float) -> None:
        started = self.now
        try:
            await self._send()
        except Exception as error:  # noqa: BLE001  whatever it is, the user has no answer
            self.outcomes.append(Outcome(due, started, self.now, "failed", words(error)))
        else:
            self.outcomes.append(Outcome(due, started, self.now))
        finally:
            self._slots.release()


def words(error: BaseException) -> str:
    """Return the first line of what an error says; its kind, where it says nothing.

    >>> words(ValueError("[400] no such input")), words(TimeoutError())
    ('[400] no such input', 'TimeoutError')
    """
    lines = str(error).strip().splitlines()
    return lines[0][:_LONGEST] if lines else type(error).__name__
