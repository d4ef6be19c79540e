"""The models that may have ended Triton, and the order of loads that finds the one that ended it on load.

Triton is one process for all models of a pod: a model that ends it on load takes the others with it, and would do so
after each restart. Models whose loads were under way are suspects: they are loaded last, each alone. One that is served
is none any more. One during whose lone load Triton ended again is reported, and loaded again when all others have
served for a long delay. If no load was under way, the requests before are compared (`request_crashes`).

This is kept in memory: an agent that starts again needs as many ends of Triton once more to find the model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from conch_agent.callees import find_awaited
from conch_agent.crash_reports import Retry, build_load_failure
from conch_agent.pod_model import Loadable
from conch_agent.reasons import Failure
from conch_agent.request_crashes import RequestCrashes
from conch_agent.triton import RepositoryIndex
from conch_contract import ModelState

_MIN_ENDS: Final = 2  # Triton may end once for a reason of its own, or of its node
_PREPARED: Final = frozenset({ModelState.LOADING, ModelState.WARMING, ModelState.READY})


@dataclass
class _Suspect:
    """A content of a model during whose loads Triton ended.

    Attributes:
        ends: How often Triton ended.
        is_proved: True if Triton ended twice, the last time while it loaded no other.
        retry: The next load of one that is proved to end Triton.
    """

    ends: int = 0
    is_proved: bool = False
    retry: Retry = field(default_factory=Retry)


class Crashes:
    """The loads that are under way, and the suspects. Another content of a model is no suspect.

    Attributes:
        requests: The ends of Triton while it loaded no model.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Create it without loads.

        Args:
            clock: Returns the time in seconds.
        """
        self.requests = RequestCrashes(clock)
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
        """Record that Triton has answered a load: it did not end.

        Args:
            name: The model's name.
            content: Identifier of its content.
        """
        self._loads.pop(name, None)
        self._suspects.pop((name, content), None)

    def record_served(self, name: str, content: str) -> None:
        """Record that Triton serves a content of a model.

        Args:
            name: The model's name.
            content: Identifier of its content.
        """
        self.end_load(name, content)
        self.requests.record_served(name, content)

    def abandon_load(self, name: str) -> None:
        """Forget a load whose answer is of no interest any more.

        Args:
            name: The model's name.
        """
        self._loads.pop(name, None)

    def record_end(self) -> None:
        """Record that Triton has ended."""
        if not self._loads:
            self.requests.record_end()
            return
        self.requests.record_start()
        is_alone = len(self._loads) == 1
        for load in self._loads.items():
            suspect = self._suspects.setdefault(load, _Suspect())
            suspect.ends += 1
            if is_alone and suspect.ends >= _MIN_ENDS:
                suspect.is_proved = True
                suspect.retry.schedule()
        self._loads.clear()

    def find_failure(self, name: str, content: str) -> Failure | None:
        """Return the failure of a model that ends Triton, until it is served; None: it is not known to do so.

        Args:
            name: The model's name.
            content: Identifier of its content.
        """
        suspect = self._suspects.get((name, content))
        if suspect is None or not suspect.is_proved:
            return self.requests.find_failure(name, content)
        return build_load_failure(name, suspect.ends)

    def is_due(self, name: str, models: Mapping[str, Loadable], index: RepositoryIndex) -> bool:
        """Return False until a model that ends Triton may be loaded again.

        Its delay begins when all others serve: the start of a Triton that has ended may take longer.

        Args:
            name: The model's name.
            models: The models of the manifest by name.
            index: Triton's repository index.
        """
        content = models[name].content
        suspect = self._suspects.get((name, content))
        retry = suspect.retry if suspect and suspect.is_proved else self.requests.find_retry(name, content)
        if retry is None:
            return True
        if any(self._precedes_culprits(other, models, index) for other in models if other != name):
            return False
        return retry.is_due(self._clock())

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
        if suspect.is_proved:
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
        """Record that Triton has answered a load: it did not end."""
        self.crashes.end_load(self.name, self.content)

    def record_served(self) -> None:
        """Record that Triton serves the content."""
        self.crashes.record_served(self.name, self.content)

    def abandon(self) -> None:
        """Forget a load whose answer is of no interest any more."""
        self.crashes.abandon_load(self.name)

    @property
    def failure(self) -> Failure | None:
        """The failure of a content that ends Triton, until it is served; None: it is not known to do so."""
        return self.crashes.find_failure(self.name, self.content)

    @property
    def suspicion(self) -> str:
        """The message about several models of which one ends Triton, for the first of them; else empty."""
        return self.crashes.requests.describe_suspects(self.name, self.content)

    def is_due(self, models: Mapping[str, Loadable], index: RepositoryIndex) -> bool:
        """Return False until a content that ends Triton may be loaded again.

        Args:
            models: The models of the manifest by name.
            index: Triton's repository index.
        """
        return self.crashes.is_due(self.name, models, index)

    def raise_failure(self, models: Mapping[str, Loadable], index: RepositoryIndex) -> None:
        """Raise the failure of a content that ends Triton, until it may be loaded again.

        Args:
            models: The models of the manifest by name.
            index: Triton's repository index.

        Raises:
            Failure: LoadCrashed, RequestsCrashed.
        """
        if (failure := self.failure) and not self.is_due(models, index):
            raise failure


def _has_callees(name: str, models: Mapping[str, Loadable], index: RepositoryIndex) -> bool:
    """Return True if Triton serves the models that a model waits for."""
    try:
        return not find_awaited(name, models, index)
    except Failure:
        return False
