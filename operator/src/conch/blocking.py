"""Reports calls that block the event loop: everything else in the process waits for them.

asyncio's debug mode reports it too, and makes each callback several times as slow.
"""

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Final

import structlog
from prometheus_client import Counter

LIMIT_SECONDS: Final = 0.05  # between two checks: every call that takes twice as long is found
_FRAMES: Final = 4  # of the stack, the innermost last

_blocked = Counter("conch_event_loop_blocked_seconds", "Time in which the event loop of the process did nothing else.")
_log = structlog.get_logger("conch")


@contextmanager
def report_blocking(limit: float = LIMIT_SECONDS) -> Iterator[None]:
    """Log each call that blocks the running event loop for twice `limit` seconds, and its place in the code.

    A thread checks every `limit` seconds whether the loop runs. Where the whole process did not run, as on a node
    without processor time, `process_ran` is false.
    """
    loop, thread = asyncio.get_running_loop(), threading.get_ident()
    watch = _Watch(loop, thread, limit)
    watch.start()
    try:
        yield
    finally:
        watch.stop()


class _Watch:
    def __init__(self, loop: asyncio.AbstractEventLoop, thread: int, limit: float) -> None:
        self._loop = loop
        self._thread = thread
        self._limit = limit
        self._seen = time.monotonic()  # when the loop last ran
        self._processor = time.process_time()  # how much of it the process had used then
        self._where = ""  # the place in the code that blocks it
        self._ended = threading.Event()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._beat()
        threading.Thread(target=self._check, name="blocking", daemon=True).start()

    def stop(self) -> None:
        self._ended.set()
        if self._timer is not None:
            self._timer.cancel()

    def _beat(self) -> None:
        """Note that the loop runs, and report the call that blocked it."""
        seconds, used = time.monotonic() - self._seen - self._limit, time.process_time() - self._processor
        if self._where and seconds > self._limit:
            _blocked.inc(seconds)
            ran = used > seconds / 2
            _log.warning("event loop blocked", seconds=round(seconds, 3), at=self._where, process_ran=ran)
        self._where = ""
        self._seen, self._processor = time.monotonic(), time.process_time()
        self._timer = self._loop.call_later(self._limit, self._beat)

    def _check(self) -> None:
        """Note the stack of the loop's thread while the loop is late."""
        while not self._ended.wait(self._limit):
            if not self._where and time.monotonic() - self._seen > 2 * self._limit:
                frame = sys._current_frames().get(self._thread)  # noqa: SLF001  documented, in spite of its name
                self._where = " < ".join(_list_places(frame)) if frame is not None else ""


def _list_places(frame: FrameType) -> Iterator[str]:
    """Yield the innermost places of a stack. Unlike `traceback.extract_stack`, this keeps no source files in memory."""
    for each, line in islice(traceback.walk_stack(frame), _FRAMES):
        yield f"{Path(each.f_code.co_filename).name}:{line} {each.f_code.co_name}"
