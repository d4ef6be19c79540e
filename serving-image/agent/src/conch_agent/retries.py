"""The attempts of a model: each failure is reported, and another attempt follows after a delay that grows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

from structlog.typing import FilteringBoundLogger

from conch_agent.backoff import Backoff
from conch_agent.reasons import Failure, Reason, Retry


class Retries:
    """Delays between the attempts of one model, in seconds."""

    def __init__(self) -> None:
        self._soon = Backoff(first=1, longest=60)
        self._later = Backoff(first=10, longest=60)

    def draw_delay(self, failure: Failure) -> float:
        """Return the delay after a failure, which a server may have made longer.

        Args:
            failure: The failure of the last attempt.
        """
        backoff = self._later if failure.reason.retry is Retry.LATER else self._soon
        return max(backoff.draw_delay(), failure.retry_after)

    def record_prepared(self) -> None:
        """Begin anew after failures whose retry is SOON: the model is in the repository."""
        self._soon.reset()

    def record_served(self) -> None:
        """Begin anew after failures whose retry is LATER: the model serves."""
        self._later.reset()


async def run_with_retries(
    attempt: Callable[[Retries], Awaitable[None]],
    report: Callable[[Failure], None],
    wait_until_due: Callable[[], Awaitable[None]],
    log: FilteringBoundLogger,
) -> NoReturn:
    """Run attempts, one after the other, until cancelled. One that ends without a failure is followed at once.

    Args:
        attempt: Runs an attempt, and records its successes.
        report: Reports the failure of an attempt.
        wait_until_due: Waits until a model that ends Triton may be loaded again.
        log: The log of failures that no code expects.
    """
    retries = Retries()
    while True:
        try:
            await attempt(retries)
            continue
        except Failure as failure:
            last = failure
        except Exception as error:  # an unexpected failure of one model must not end the others
            log.exception("unexpected")
            last = Failure(Reason.INTERNAL, f"{type(error).__name__}: {error}")
        report(last)
        if last.reason.retry is Retry.AFTER_OTHERS:
            await wait_until_due()
        else:
            await asyncio.sleep(retries.draw_delay(last))
