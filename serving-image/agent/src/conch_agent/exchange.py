"""The exchange of a set of models for another one, in a pod whose Triton serves the first.

Models of a set call one another, so that one that is exchanged by itself would answer with parts of two sets. What
changes, and what calls it, is unloaded when all files of the new set are there and no request reaches it any more;
then the new set is loaded, what others call first. A model alone needs no exchange: Triton goes on with the old
content until it has loaded the new one.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

import structlog

from conch_agent.monitor import TritonMonitor
from conch_agent.pod_model import PodModel
from conch_agent.reasons import Failure, Reason
from conch_agent.triton import RepositoryIndex, Triton, TritonError, TritonUnavailableError, Version
from conch_contract.sentences import join_some

_IDLE_SECONDS: Final = 5.0  # without a request after which a model may be unloaded
_IN_MEMORY: Final = frozenset({"READY", "LOADING", "UNLOADING"})  # states of a version


class Exchange:
    """The exchange for one set. Its models are loaded when it is over.

    Attributes:
        is_over: True if Triton has nothing of another set.
        failure: Why it is not; None: it is, or Triton does not answer.
    """

    def __init__(
        self,
        models: Mapping[str, PodModel],
        triton: Triton,
        monitor: TritonMonitor,
        wait_until_left: Callable[[], Awaitable[bool]],
        before: Mapping[str, Collection[str]],
    ) -> None:
        """Create the exchange.

        Args:
            models: The new set by name.
            triton: The client of Triton.
            monitor: The monitor of Triton.
            wait_until_left: Waits until the pod gets no requests; returns False if it serves its revision.
            before: The models that a model of the set before may call, by its name, as far as they are known.
        """
        self.is_over = False
        self.failure: Failure | None = None
        self._models = models
        self._triton = triton
        self._monitor = monitor
        self._wait_until_left = wait_until_left
        self._before = before
        self._stale: dict[str, bool] = {}  # whether what Triton serves is not of the new set, by name of the model
        self._log = structlog.get_logger()

    async def run(self) -> None:
        """Unload what the new set changes, when all of it is there and no request reaches the old one."""
        while not self.is_over:
            # First of all an index that is newer than the loads that were requested for the set before.
            await self._monitor.wait_for_update()
            try:
                self.is_over = await self._proceed()
            except TritonUnavailableError as error:
                self._log.info("the exchange waits", detail=str(error))
            except TritonError as error:
                message = f"Triton does not unload the models of before: {error}. See its log."
                self.failure = Failure(Reason.UNLOAD_FAILED, message)
            except Exception as error:  # noqa: BLE001  reported; without an end of the exchange no model is loaded
                self._log.exception("unexpected")
                self.failure = Failure(Reason.INTERNAL, f"{type(error).__name__}: {error}")
        self.failure = None

    async def _proceed(self) -> bool:
        """Go on as far as possible; return True if nothing is left of another set."""
        index = self._monitor.index
        if index is None:
            return False
        present = find_in_memory(index)
        missing = {name for name, model in self._models.items() if not (model.is_laid_out or model.may_be_missing)}
        if unsettled := {name for name in present if not _is_settled(index[name])}:
            self.failure = build_waiting_failure(f"Triton still loads or unloads {join_some(sorted(unsettled))}")
            return False
        stale = await self._find_stale(present - missing)
        if not stale and not present & missing:
            return True
        if missing:
            self.failure = build_waiting_failure(f"the files of {join_some(sorted(missing))} are not there yet")
            return False
        callees = self.list_callees()
        return await self._unload(order_unloads(find_callers(stale, callees) & present, callees))

    def list_callees(self) -> Mapping[str, Collection[str]]:
        """Return the models that a model in Triton's memory may call, by its name: those of both sets."""
        return merge_callees(self._before, collect_callees(self._models))

    async def _find_stale(self, names: Iterable[str]) -> set[str]:
        """Return the models that the new set does not have, or has with another content."""
        for name in names:
            model = self._models.get(name)
            if model is None or not model.is_laid_out:
                self._stale[name] = True
            elif name not in self._stale:
                self._stale[name] = not await model.has_current_content()
        return {name for name in names if self._stale[name]}

    async def _unload(self, levels: tuple[tuple[str, ...], ...]) -> bool:
        """Unload models, callers first, when none of them gets requests; return True if the pod may not do so.

        A caller is gone when its last request has been answered, for which it needs those that it calls.
        """
        if not await self._wait_until_left():
            return True
        names = {name for level in levels for name in level}
        if busy := await find_busy(names, self._triton):
            self.failure = build_busy_failure(busy)
            return False
        self._log.info("unloads what changes", models=sorted(names))
        self.failure = build_waiting_failure("those of before are unloaded, each when its last request is answered")
        self._stale.clear()
        for level in levels:
            for name in level:
                await self._triton.unload(name)
            while find_in_memory(self._monitor.index or {}) & set(level):
                await self._monitor.wait_for_update()
            if self._monitor.index is None:
                return False
        return False


async def find_busy(names: Iterable[str], triton: Triton) -> list[str]:
    """Return the models that have answered a request a moment ago, so that others may follow, in alphabetical order.

    Args:
        names: Names of models.
        triton: The client of Triton.

    Raises:
        TritonUnavailableError: Triton does not answer.
    """
    return select_busy(names, await triton.read_last_request_times(), time.time())


def select_busy(names: Iterable[str], last: Mapping[str, Sequence[float]], now: float) -> list[str]:
    """Return the models that have answered a request a moment ago, in alphabetical order.

    A time in the future was before the node's clock was set back, and is none of the last requests.

    Args:
        names: Names of models.
        last: The times of the last requests to the versions of a model by its name, in seconds.
        now: The time now.

    >>> select_busy("ab", {"a": [100.0, 99.0], "b": [3700.0]}, 100.5)
    ['a']
    """
    return sorted(name for name in names if any(abs(now - each) < _IDLE_SECONDS for each in last.get(name, ())))


def collect_callees(models: Mapping[str, PodModel]) -> Mapping[str, Collection[str]]:
    """Return the models that each model of a set may call, by its name.

    Args:
        models: The set by name.
    """
    return {name: models.keys() - {name} if model.makes_calls else model.callees for name, model in models.items()}


def merge_callees(
    one: Mapping[str, Collection[str]], other: Mapping[str, Collection[str]]
) -> Mapping[str, Collection[str]]:
    """Return the callees of models by one of two mappings.

    Args:
        one: The models that a model calls, by its name.
        other: The same.
    """
    return {name: {*one.get(name, ()), *other.get(name, ())} for name in one.keys() | other.keys()}


def find_in_memory(index: RepositoryIndex) -> set[str]:
    """Return the names of the models that Triton serves, loads, or has not released yet.

    Args:
        index: Triton's repository index.
    """
    return {name for name, versions in index.items() if any(version.state in _IN_MEMORY for version in versions)}


def _is_settled(versions: Iterable[Version]) -> bool:
    """Return True unless Triton loads or unloads a version."""
    return all(version.state not in {"LOADING", "UNLOADING"} for version in versions)


def find_callers(names: Iterable[str], callees: Mapping[str, Collection[str]]) -> set[str]:
    """Return models with all that call them, directly or through others.

    Args:
        names: Names of models.
        callees: The models that a model calls, by its name.

    >>> sorted(find_callers({"d"}, {"a": ["b"], "b": ["d"], "c": ["b"], "e": []}))
    ['a', 'b', 'c', 'd']
    """
    found = set(names)
    while more := {name for name, called in callees.items() if found & set(called)} - found:
        found |= more
    return found


def order_unloads(names: Collection[str], callees: Mapping[str, Collection[str]]) -> tuple[tuple[str, ...], ...]:
    """Return models in groups, where callers come before what they call, unless they call one another.

    Args:
        names: Names of models.
        callees: The models that a model calls, by its name.

    >>> order_unloads({"a", "b", "c", "d"}, {"b": ["a"], "c": ["b", "a"]})
    (('c', 'd'), ('b',), ('a',))
    """
    ordered: list[tuple[str, ...]] = []
    left = set(names)
    while left:
        called = {callee for name in left for callee in callees.get(name, ()) if callee != name}
        free = left - called or {name for name in left if left.intersection(callees.get(name, ()))}
        ordered.append(tuple(sorted(free)))
        left -= free
    return tuple(ordered)


def build_waiting_failure(cause: str) -> Failure:
    """Return the failure of models that are not loaded yet, because the set that they belong to is not complete.

    Args:
        cause: Why, as a part of a sentence.
    """
    return Failure(Reason.WAITS_FOR_MODELS, f"Models that change together are loaded together: {cause}.")


def build_busy_failure(names: Iterable[str]) -> Failure:
    """Return the failure of a pod to which clients still send requests over connections that they keep.

    Args:
        names: The models that they call.
    """
    message = (
        f"Clients that keep their connections to this pod still send requests to {join_some(names)}. The pod loads"
        f" the models of its next revision when none came for {_IDLE_SECONDS:g} s, so that parts of two never meet. To"
        " go on, send requests through a gateway, or close these connections."
    )
    return Failure(Reason.WAITS_FOR_CLIENTS, message)
