"""The open loop: each request is started when it is due, whatever became of those before."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from conch.cli.loadtest.results import Outcome
from conch_contract.remedies import find_remedy

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
        self._held = 0.0  # when the last wait for a slot ended: what is behind because of it is the service's doing

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
                behind = max(0.0, self.now - max(due, self._held))
                if await self._slot(due):
                    requests.create_task(self._one(due, behind))
                else:
                    why = CLIENT if behind > PATIENCE / 2 else IN_FLIGHT
                    self.outcomes.append(Outcome(due, self.now, behind, "late", why))

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
        """Take a slot, and tell whether there was one in time."""
        if self.now > due + PATIENCE:
            return False
        if not self._slots.locked():
            return await self._slots.acquire()
        try:
            async with asyncio.timeout_at(self._began + due + PATIENCE):
                return await self._slots.acquire()
        except TimeoutError:
            return False
        finally:
            self._held = self.now

    async def _one(self, due: float, behind: float) -> None:
        try:
            await self._send()
        except Exception as error:  # noqa: BLE001  whatever it is, the user has no answer
            self.outcomes.append(Outcome(due, self.now, behind, "failed", words(error)))
        else:
            self.outcomes.append(Outcome(due, self.now, behind))
        finally:
            self._slots.release()


def words(error: BaseException) -> str:
    """Return an error for a user: what to do about it, if Conch knows, and the first line of its message or its type.

    >>> words(ValueError("[400] no such input")), words(TimeoutError())
    ('[400] no such input', 'TimeoutError')
    """
    text = str(error).strip()
    line = text.splitlines()[0][:_LONGEST] if text else type(error).__name__
    found = find_remedy(text)
    return f"{found} Triton's words: {line}" if found else line
