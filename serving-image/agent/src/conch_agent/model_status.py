"""The state of one model in its pod, and the failures that are reported of it."""

from __future__ import annotations

import time

from structlog.typing import FilteringBoundLogger

from conch_agent.reasons import Failure, Reason
from conch_contract import ModelState


class ModelStatus:
    """State and failures of a model, which change together.

    Attributes:
        state: The state before the next read of Triton's index.
        failure: Why the model does not proceed; None: it does.
        last_failure: A failure that does not hold the pod, until the model serves; None: there is none.
    """

    def __init__(self, log: FilteringBoundLogger) -> None:
        """Create the status of a model that is pending.

        Args:
            log: The model's log.
        """
        self.state = ModelState.PENDING
        self.failure: Failure | None = None
        self.last_failure: Failure | None = None
        self._fetch_began = 0.0
        self._log = log

    def set_fetching(self) -> None:
        """Record that a fetch begins: the store has answered, so that its last failure is over."""
        self.state, self.failure = ModelState.FETCHING, None
        self._fetch_began = time.monotonic()

    def set_waiting(self, failure: Failure) -> None:
        """Record that the load waits.

        Args:
            failure: What it waits for.
        """
        self.state, self.failure = ModelState.LOADING, failure

    def set_ready(self, load_seconds: float) -> None:
        """Record that the model serves.

        Args:
            load_seconds: Duration of its load, for the log.
        """
        if self.state != ModelState.READY or self.failure:
            self._log.info("ready", load_seconds=round(load_seconds, 3))
        self.state, self.failure, self.last_failure = ModelState.READY, None, None

    def set_failed(self, failure: Failure, *, required: bool) -> None:
        """Record a failure.

        Args:
            failure: The failure.
            required: True if the pod is not ready without the model. It is without one that ends Triton at requests,
                so that the others serve.
        """
        if not self.failure or self.failure.message != failure.message:
            self._log.warning("failed", reason=failure.reason, message=failure.message)
        self.state, self.failure = ModelState.FAILED, failure
        may_be_missing = failure.reason == Reason.REQUESTS_CRASHED or not required
        self.last_failure = failure if may_be_missing else None

    def compute_fetch_seconds(self, before: float) -> float:
        """Return the duration of the fetch in seconds, so far while it runs.

        Args:
            before: That of the content in the repository.
        """
        return round(time.monotonic() - self._fetch_began, 3) if self.state == ModelState.FETCHING else before
