"""What blocks the event loop is named."""

import asyncio
import linecache
import time

from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from conch.blocking import report_blocking


def hold_up(seconds: float) -> None:
    """Let nothing else run."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def counted() -> float:
    """Return the seconds that the metric has."""
    return REGISTRY.get_sample_value("conch_event_loop_blocked_seconds_total") or 0.0


async def test_a_call_that_blocks_the_loop_is_named_with_its_place() -> None:
    before = counted()
    linecache.clearcache()
    with capture_logs() as logs, report_blocking(0.05):
        await asyncio.sleep(0.2)
        hold_up(1.0)
        while not logs:  # noqa: ASYNC110  what is waited for is a log line
            await asyncio.sleep(0.01)
    places = [entry["at"] for entry in logs]
    assert any("hold_up < test_blocking.py" in place for place in places), places
    assert counted() > before
    assert not linecache.cache, "source files stay in memory"


async def test_a_loop_that_waits_is_not_blocked() -> None:
    with capture_logs() as logs, report_blocking(5.0):
        await asyncio.sleep(0.3)
    assert logs == []
