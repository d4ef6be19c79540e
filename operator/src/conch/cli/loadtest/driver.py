"""The open loop: each request is started when it is due, independent of earlier ones."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from conch.cli.loadtest.results import Outcome
from conch_contract.remedies import find_remedy

# A request that could not be started within so many seconds is not sent.
PATIENCE: Final = 1.0
IN_FLIGHT: Final = "as many requests as --concurrency allows were in flight"
CLIENT: Final = "this client was behind its schedule"
_CHECK_SECONDS: Final = 0.1  # between checks of the stop event
_LONGEST: Final = 300


class Driver:
    """One run. Its outcomes so far can be read at any time, in the order of their ends."""

    def __init__(self, send: Callable[[], Awaitable[object]], concurrency: int) -> None:
        self.outcomes: list[Outcome] = []
        self.scheduled = 0  # requests that were due by now
        self._send = send
        self._slots = asyncio.Semaphore(concurrency)
        self._began = 0.0
        self._waited_until = 0.0  # end of the last wait for a slot: a delay until then is the service's

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return asyncio.get_running_loop().time() - self._began

    @property
    def in_flight(self) -> int:
        """Requests due and not ended."""
        return self.scheduled - len(self.outcomes)

    async def run(self, dues: Iterable[float], stop: asyncio.Event) -> None:
        """Start the requests when they are due, and return when all of them have ended.

        `dues` ascend, in seconds from now. No request is sent after `stop` is set.
        """
        self._began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as requests:
            for due in dues:
                if not await self._wait_until(due, stop):
                    return
                self.scheduled += 1
                behind = max(0.0, self.now - max(due, self._waited_until))
                if await self._take_slot(due):
                    requests.create_task(self._send_one(due, behind))
                else:
                    why = CLIENT if behind > PATIENCE / 2 else IN_FLIGHT
                    self.outcomes.append(Outcome(due, self.now, behind, "late", why))

    async def _wait_until(self, due: float, stop: asyncio.Event) -> bool:
        """Wait until a request is due; return False on `stop`. Other tasks always run in between."""
        await asyncio.sleep(0)
        while not stop.is_set():
            left = due - self.now
            if left <= 0:
                return True
            await asyncio.sleep(min(left, _CHECK_SECONDS))
        return False

    async def _take_slot(self, due: float) -> bool:
        """Take a slot; return whether one was free in time."""
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
            self._waited_until = self.now

    async def _send_one(self, due: float, behind: float) -> None:
        try:
            await self._send()
        except Exception as error:  # noqa: BLE001  any error is a request without an answer
            self.outcomes.append(Outcome(due, self.now, behind, "failed", describe_failure(error)))
        else:
            self.outcomes.append(Outcome(due, self.now, behind))
        finally:
            self._slots.release()


def describe_failure(error: BaseException) -> str:
    """Return the message of an error: the remedy, if Conch knows one, and its first line or its type.

    >>> describe_failure(ValueError("[400] no such input")), describe_failure(TimeoutError())
    ('[400] no such input', 'TimeoutError')
    """
    text = str(error).strip()
    line = text.splitlines()[0][:_LONGEST] if text else type(error).__name__
    found = find_remedy(text)
    return f"{found} Triton's words: {line}" if found else line
