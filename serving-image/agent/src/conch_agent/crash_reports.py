"""What users read about a model that ends Triton, and when it is loaded again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from conch_agent.backoff import Backoff
from conch_agent.reasons import Failure, Reason
from conch_contract import names
from conch_contract.sentences import join_some

_FIRST_DELAY: Final = 10.0  # seconds
LONGEST_DELAY: Final = 600.0  # seconds: each retry may end Triton, and the kubelet's delays grow with each restart
_CAUSE: Final = (
    f"Read the reason in the log of the container that ended: kubectl logs POD -c {names.TRITON_CONTAINER} --previous."
    " If the kernel ended it for want of memory (kubectl describe pod POD has OOMKilled), raise the memory limit in"
    " spec.predictor.resources."
)
_RETRY: Final = (
    "The model is loaded again when the others have been served for"
    f" {_FIRST_DELAY:g} s to {LONGEST_DELAY:g} s, or at once with another content."
)


@dataclass
class Retry:
    """The next load of a content that ends Triton, when all others have served for a delay.

    Attributes:
        time: When the delay is over; None: others have not served since the last end.
    """

    time: float | None = None
    _delay: float = 0.0
    _backoff: Backoff = field(default_factory=lambda: Backoff(first=_FIRST_DELAY, longest=LONGEST_DELAY))

    def schedule(self) -> None:
        """Begin anew with the next delay, after an end of Triton."""
        self._delay, self.time = self._backoff.draw_delay(), None

    def is_due(self, now: float) -> bool:
        """Return True if the delay is over, which begins with the first call.

        Args:
            now: The time in seconds, at which all others serve.
        """
        if self.time is None:
            self.time = now + self._delay
        return now >= self.time


def build_load_failure(name: str, ends: int) -> Failure:
    """Return the failure of a model that ends Triton on load.

    Args:
        name: The model's name.
        ends: How often Triton ended.
    """
    message = (
        f"Triton ended {ends} times while it loaded model '{name}', the last time while it loaded no other."
        f" {_CAUSE} {_RETRY}"
    )
    return Failure(Reason.LOAD_CRASHED, message)


def build_requests_failure(name: str, ends: int, seconds: float) -> Failure:
    """Return the failure of a model that ends Triton while it answers requests.

    Args:
        name: The model's name.
        ends: How often Triton ended.
        seconds: The time before each end in which the model had answered requests.
    """
    message = (
        f"Triton ended {ends} times while it answered requests, each time after model '{name}' had answered some in"
        f" the last {seconds:g} s; these times fit no other model as well. {_CAUSE} {_RETRY}"
    )
    return Failure(Reason.REQUESTS_CRASHED, message)


def describe_suspects(models: Sequence[str], ends: int, seconds: float) -> str:
    """Return the message about models of which one may end Triton while it answers requests, and which are not held.

    Args:
        models: Names of the models.
        ends: The number of the last ends of Triton that are compared.
        seconds: The time before each end in which all these models had answered requests.
    """
    if len(models) == 1:
        return (
            f"The last {ends} times that Triton ended, it answered requests, each time after model '{models[0]}' had"
            f" answered some in the last {seconds:g} s; these times fit no other model as well. {_CAUSE} The model is"
            " loaded again at once, since its pod does not serve without it."
        )
    return (
        f"The last {ends} times that Triton ended, it answered requests, and each time these models had answered some"
        f" in the last {seconds:g} s: {join_some(models)}. Which one ends it is not known, so that all are loaded"
        f" again. {_CAUSE} To find the model, send requests to one of them at a time."
    )
