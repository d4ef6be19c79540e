"""The model that may have ended Triton while it answered requests, by the requests that were answered just before.

Triton counts a request when it is answered, so the one that ends it is in no count. What is visible is which models had
answered others in the seconds before. A model that ends Triton at some of its requests had done so each time. So had,
by chance, a model that answers requests all the time, or a step of the same ensemble: a model is named only if the
times fit it much better than any other one. Each end without it clears it, one while it was not loaded in particular.

`find_suspects` is a function of values. `RequestCrashes` collects these from reads of Triton's statistics.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from conch_agent.crash_reports import LONGEST_DELAY, Retry, build_requests_failure, describe_suspects
from conch_agent.reasons import Failure

ENDS: Final = 3  # of Triton, at least, which are compared
WINDOW: Final = 10.0  # seconds before an end, and of the windows without one
FORGET_SECONDS: Final = 600.0  # without an end, or since the named model is served again; then ends are forgotten
_MAX_ENDS: Final = 20
_MAX_WINDOWS: Final = 60  # ten minutes
_MIN_RATIO: Final = 100.0  # of the odds of two models

Content = tuple[str, str]
"""Name of a model, and identifier of its content."""


@dataclass(frozen=True)
class Window:
    """WINDOW seconds in which Triton did not end, nor in the WINDOW seconds after.

    Attributes:
        served: What Triton served.
        active: What answered requests.
    """

    served: frozenset[Content]
    active: frozenset[Content]


def compute_share(content: Content, windows: Iterable[Window]) -> float:
    """Return the share of the time in which a content answers requests: the probability of that in a further window.

    It is Laplace's rule of succession, (active + 1) / (served + 2), so that few windows are weak evidence.

    Args:
        content: The content.
        windows: The windows without an end of Triton.

    >>> a, b = ("a", "1"), ("b", "1")
    >>> windows = [Window(served=frozenset({a, b}), active=frozenset({a}))] * 4
    >>> [round(compute_share(content, windows), 2) for content in (a, b, ("c", "1"))]
    [0.83, 0.17, 0.5]
    """
    served = [content in window.active for window in windows if content in window.served]
    return (sum(served) + 1) / (len(served) + 2)


def find_suspects(ends: Sequence[Collection[Content]], windows: Collection[Window]) -> frozenset[Content]:
    """Return the contents that may be the one that ends Triton. A single one is named; none: the ends are too few.

    The ends are the last ones, as many as a single content may have caused: one that was absent before any of them is
    no suspect. The others have the odds 1 / share ^ ENDS, since one that does not end Triton is active before ENDS ends
    by chance; one with less than a hundredth of the highest odds is no suspect either.

    Args:
        ends: What had answered requests in the WINDOW seconds before each end of Triton, in their order.
        windows: Windows without an end.
    """
    present: list[frozenset[Content]] = []  # at the last end, at the last two ends, and so on
    for end in reversed(ends):
        present.append(present[-1].intersection(end) if present else frozenset(end))
    possible = [contents for contents in present if contents]
    if len(possible) < ENDS:
        return frozenset()
    odds = {content: compute_share(content, windows) ** -ENDS for content in possible[-1]}
    return frozenset(content for content, each in odds.items() if each * _MIN_RATIO > max(odds.values()))


@dataclass
class _Hold:
    """The named content, which is loaded again after a delay.

    Attributes:
        ends: How often it has ended Triton.
        retry: Its next load.
        is_over: True if it has been served since.
    """

    ends: int = ENDS - 1
    retry: Retry = field(default_factory=Retry)
    is_over: bool = False


class RequestCrashes:
    """What answered requests before the ends of Triton, and the content that is named for it.

    Attributes:
        needed: Names of the models without which the pod is not ready. They are reported, and loaded again at once.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Create it without ends.

        Args:
            clock: Returns the time in seconds.
        """
        self.needed: frozenset[str] = frozenset()
        self._clock = clock
        self._contents: dict[str, str] = {}  # that Triton serves, by name of the model
        self._counts: Mapping[str, int] | None = None  # None: the agent has just started, Triton perhaps long before
        self._recent: deque[tuple[float, frozenset[Content]]] = deque()  # reads of the last WINDOW seconds
        self._earlier: list[tuple[float, frozenset[Content]]] = []  # reads before, until they are a window
        self._windows: deque[Window] = deque(maxlen=_MAX_WINDOWS)
        self._ends: deque[frozenset[Content]] = deque(maxlen=_MAX_ENDS)
        self._forget_time = 0.0
        self._answer_times: dict[Content, float] = {}  # when each content last answered requests
        self._suspects: frozenset[Content] = frozenset()
        self._holds: dict[Content, _Hold] = {}

    @property
    def has_ends(self) -> bool:
        """True if Triton ended while it answered requests, and this is not forgotten yet."""
        return bool(self._ends)

    def record_served(self, name: str, content: str) -> None:
        """Record that Triton serves a content of a model.

        Args:
            name: The model's name.
            content: Identifier of its content.
        """
        self._contents[name] = content
        hold = self._holds.get((name, content))
        if hold is None or hold.is_over or hold.retry.time is None:
            return
        now = self._clock()
        if now >= hold.retry.time:  # before, a read from the Triton that ended may be under way
            hold.is_over, self._forget_time = True, now + FORGET_SECONDS

    def record_counts(self, counts: Mapping[str, int]) -> None:
        """Record how many requests Triton has answered.

        Args:
            counts: The number by name of each model that Triton serves. It begins at 0 when a model is loaded.
        """
        now, before = self._clock(), self._counts
        if self._ends and now > self._forget_time:
            self._forget_ends()
        self._counts = counts
        names = () if before is None else (name for name, count in counts.items() if count not in {0, before.get(name)})
        active = self._identify(names)
        self._recent.append((now, active))
        self._answer_times.update(dict.fromkeys(active, now))
        while self._recent[0][0] < now - WINDOW:
            self._earlier.append(self._recent.popleft())
        if self._earlier and self._earlier[-1][0] - self._earlier[0][0] >= WINDOW:
            self._windows.append(Window(self._identify(counts), _join(self._earlier)))
            self._earlier.clear()

    def record_start(self) -> None:
        """Record that Triton starts anew, after an end of another kind: it has answered no requests."""
        self._counts = {}
        self._recent.clear()
        self._earlier.clear()

    def record_end(self) -> None:
        """Record that Triton has ended while it loaded no model."""
        now, active = self._clock(), _join(self._recent)
        self._ends.append(active)
        self.record_start()
        self._suspects = find_suspects(tuple(self._ends), self._windows)
        self._holds = {content: hold for content, hold in self._holds.items() if content in active}
        self._forget_time = now + FORGET_SECONDS
        suspects = [content for content in self._suspects if content[0] not in self.needed]
        if suspects and len(self._suspects) == 1 and self._has_others(now):
            hold = self._holds.setdefault(suspects[0], _Hold())
            hold.ends += 1
            hold.is_over = False
            hold.retry.schedule()
            self._forget_time += LONGEST_DELAY

    def forget(self) -> None:
        """Forget all ends: the pod serves at most one model, which takes no other with it."""
        self._forget_ends()
        self.record_start()
        self._counts = None

    def find_failure(self, name: str, content: str) -> Failure | None:
        """Return the failure of a content that ends Triton, until it is served again; None: it is not named.

        Args:
            name: The model's name.
            content: Identifier of its content.
        """
        hold = self._find_hold(name, content)
        return build_requests_failure(name, hold.ends, WINDOW) if hold else None

    def find_retry(self, name: str, content: str) -> Retry | None:
        """Return the next load of a content that ends Triton, until it is served again; None: it is not named.

        Args:
            name: The model's name.
            content: Identifier of its content.
        """
        hold = self._find_hold(name, content)
        return hold.retry if hold else None

    def _find_hold(self, name: str, content: str) -> _Hold | None:
        hold = self._holds.get((name, content))
        return None if hold is None or hold.is_over or name in self.needed else hold

    def describe_suspects(self, name: str, content: str) -> str:
        """Return the message about contents that may end Triton and are not held, for the first one; else empty.

        Args:
            name: The model's name.
            content: Identifier of its content.
        """
        held = {each for each in self._holds if each[0] not in self.needed}
        if (name, content) != min(self._suspects, default=None) or self._suspects <= held:
            return ""
        return describe_suspects(sorted(model for model, _ in self._suspects), ENDS, WINDOW)

    def _has_others(self, now: float) -> bool:
        """Return True if models that are no suspects answered requests lately, and go on to do so without these."""
        others = self._identify(self._contents.keys() - {name for name, _ in self._suspects})
        times = (self._answer_times[content] for content in others & self._answer_times.keys())
        return any(now - answered <= FORGET_SECONDS for answered in times)

    def _identify(self, models: Iterable[str]) -> frozenset[Content]:
        """Return the contents of models, as far as they are known."""
        return frozenset((name, self._contents[name]) for name in models if name in self._contents)

    def _forget_ends(self) -> None:
        self._ends.clear()
        self._holds.clear()
        self._suspects = frozenset()


def _join(reads: Iterable[tuple[float, frozenset[Content]]]) -> frozenset[Content]:
    """Return what answered requests between several reads."""
    return frozenset[Content]().union(*(active for _, active in reads))
