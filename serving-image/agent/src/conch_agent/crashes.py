"""The models that may have ended Triton while it loaded them, and the order of loads that finds the one that did.

Triton is one process for all models of a pod: a model that ends it on load takes the others with it, and would do so
after each restart. Models whose loads were under way are suspects: they are loaded last, each alone. One that is served
is none any more. One during whose lone load Triton ended again is reported, and loaded again when all others have
served for a long delay. This is kept in memory: an agent that starts again needs two more ends of Triton to find the
model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from conch_agent.backoff import Backoff
from conch_agent.callees import find_awaited
from conch_agent.pod_model import Loadable
from conch_agent.reasons import Failure, Reason
from conch_agent.triton import RepositoryIndex
from conch_contract import ModelState, names

_MIN_ENDS: Final = 2  # Triton may end once for a reason of its own, or of its node
_FIRST_DELAY: Final = 10.0  # seconds
_LONGEST_DELAY: Final = 600.0  # seconds: each retry may end Triton, and the kubelet's delays grow with each restart
_PREPARED: Final = frozenset({ModelState.LOADING, ModelState.WARMING, ModelState.READY})


@dataclass
class _Suspect:
    """A content of a model during whose loads Triton ended.

    Attributes:
        ends: How often Triton ended.
        delay: Seconds for which all others serve before it is loaded again; None: it is not proved to end Triton.
        retry_time: When these are over; None: others have not served since the last end.
    """

    ends: int = 0
    delay: float | None = None
    retry_time: float | None = None
    backoff: Backoff = field(default_factory=lambda: Backoff(first=_FIRST_DELAY, longest=_LONGEST_DELAY))


class Crashes:
    """The loads that are under way, and the suspects. Another content of a model is no suspect."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Create it without loads.

        Args:
            clock: Returns the time in seconds.
        """
        self._clock = clock
        self._loads: dict[str, str] = {}  # the content by name
        self._suspects: dict[tuple[str, str], _Suspect] = {}

    def bind(self, name: str, content: str) -> ContentLoads:
        """Return the loads of one content of a model.

        Args:
            name: The model's name.
            content: Identifier of its content.
        """
        return ContentLoads(self, name, content)

    def begin_load(self, name: str, content: str) -> None:
        """Record that a load is requested.

        Args:
            name: The model's name.
            content: Identifier of its content.
        """
        self._loads[name] = content

    def end_load(self, name: str, content: str) -> None:
        """Record that Triton has answered a load, or serves the content: it did not end.

        Args:
            name: The model's name.
            content: Identifier of its content.
        """
        self._loads.pop(name, None)
        self._suspects.pop((name, content), None)

    def abandon_load(self, name: str) -> None:
        """Forget a load whose answer is of no interest any more.

        Args:
            name: The model's name.
        """
        self._loads.pop(name, None)

    def record_end(self) -> None:
        """Record that Triton has ended."""
        is_alone = len(self._loads) == 1
        for load in self._loads.items():
            suspect = self._suspects.setdefault(load, _Suspect())
            suspect.ends += 1
            if is_alone and suspect.ends >= _MIN_ENDS:
                suspect.delay, suspect.retry_time = suspect.backoff.draw_delay(), None
        self._loads.clear()

    def find_failure(self, name: str, content: str) -> Failure | None:
        """Return the failure of a model that ends Triton on load, until it is served; None: none is proved.

        Args:
            name: The model's name.
            content: Identifier of its content.
        """
        suspect = self._suspects.get((name, content))
        if suspect is None or suspect.delay is None:
            return None
        message = (
            f"Triton ended {suspect.ends} times while it loaded model '{name}', the last time while it loaded no other."
            f" Read the reason in the log of the container that ended: kubectl logs POD -c {names.TRITON_CONTAINER}"
            " --previous. If the kernel ended it for want of memory (kubectl describe pod POD has OOMKilled), raise the"
            " memory limit in spec.predictor.resources. The model is loaded again when the others have been served for"
            f" {_FIRST_DELAY:g} s to {_LONGEST_DELAY:g} s, or at once with another content."
        )
        return Failure(Reason.LOAD_CRASHED, message)

    def is_due(self, name: str, models: Mapping[str, Loadable], index: RepositoryIndex) -> bool:
        """Return False until a model that ends Triton on load may be loaded again.

        Its delay begins when all others serve: the start of a Triton that has ended may take longer.

        Args:
            name: The model's name.
            models: The models of the manifest by name.
            index: Triton's repository index.
        """
        suspect = self._suspects.get((name, models[name].content))
        if suspect is None or suspect.delay is None:
            return True
        if any(self._precedes_culprits(other, models, index) for other in models if other != name):
            return False
        if suspect.retry_time is None:
            suspect.retry_time = self._clock() + suspect.delay
        return self._clock() >= suspect.retry_time

    def may_load(self, name: str, models: Mapping[str, Loadable], index: RepositoryIndex) -> bool:
        """Return True if a model may be loaded now.

        Args:
            name: The model's name.
            models: The models of the manifest by name.
            index: Triton's repository index.
        """
        suspect = self._suspects.get((name, models[name].content))
        if suspect is None:
            return not any(load in self._suspects for load in self._loads.items())
        if self._loads.keys() - {name}:
            return False
        if suspect.delay is not None:
            return self.is_due(name, models, index)
        return not any(self._precedes(other, models, index) for other in models if other != name)

    def _precedes(self, name: str, models: Mapping[str, Loadable], index: RepositoryIndex) -> bool:
        """Return True if a model is no suspect, and can be loaded now."""
        model = models[name]
        if model.is_loaded or model.state not in _PREPARED or (name, model.content) in self._suspects:
            return False
        return _has_callees(name, models, index)

    def _precedes_culprits(self, name: str, models: Mapping[str, Loadable], index: RepositoryIndex) -> bool:
        """Return True if a model can be loaded now, or later, and is not known to end Triton."""
        model = models[name]
        if model.is_loaded or model.state == ModelState.FAILED or self.find_failure(name, model.content):
            return False
        return _has_callees(name, models, index)


@dataclass(frozen=True)
class ContentLoads:
    """The loads of one content of a model.

    Attributes:
        crashes: The loads and suspects of the pod.
        name: The model's name.
        content: Identifier of the content.
    """

    crashes: Crashes
    name: str
    content: str

    def begin(self) -> None:
        """Record that a load is requested."""
        self.crashes.begin_load(self.name, self.content)

    def end(self) -> None:
        """Record that Triton has answered a load, or serves the content: it did not end."""
        self.crashes.end_load(self.name, self.content)

    def abandon(self) -> None:
        """Forget a load whose answer is of no interest any more."""
        self.crashes.abandon_load(self.name)

    @property
    def failure(self) -> Failure | None:
        """The failure of a content that ends Triton on load, until it is served; None: none is proved."""
        return self.crashes.find_failure(self.name, self.content)

    def is_due(self, models: Mapping[str, Loadable], index: RepositoryIndex) -> bool:
        """Return False until a content that ends Triton on load may be loaded again.

        Args:
            models: The models of the manifest by name.
            index: Triton's repository index.
        """
        return self.crashes.is_due(self.name, models, index)

    def raise_failure(self, models: Mapping[str, Loadable], index: RepositoryIndex) -> None:
        """Raise the failure of a content that ends Triton on load, until it may be loaded again.

        Args:
            models: The models of the manifest by name.
            index: Triton's repository index.

        Raises:
            Failure: LoadCrashed.
        """
        if (failure := self.failure) and not self.is_due(models, index):
            raise failure


def _has_callees(name: str, models: Mapping[str, Loadable], index: RepositoryIndex) -> bool:
    """Return True if Triton serves the models that a model waits for."""
    try:
        return not find_awaited(name, models, index)
    except Failure:
        return False
