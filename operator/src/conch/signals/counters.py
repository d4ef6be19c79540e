"""Reads Triton's counters from pods of services with a rollout in progress, and adds them up by revision.

A service is read every few seconds under a lease, which each reconcile of the rollout renews. A pod that does not
answer has no data, which is not zero.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from conch.api.kinds import ServiceKey
from conch.api.text import clean
from conch.observe import Pod
from conch.observe.measured import History
from conch.signals.accumulator import CounterAccumulator
from conch.signals.limiter import FairLimiter
from conch.signals.page import NOT_A_PAGE, PageError, read_page
from conch.signals.poller import Poller
from conch.signals.reader import Reader
from conch.triton.metrics import Scrape, read_metrics
from conch_contract import names

PERIOD: Final = 2.0  # seconds between two readings of a service
_LEASE: Final = 60.0  # seconds
_SECONDS: Final = 3.0  # for a page; Triton answers from memory
_SERVICES: Final = 32  # at a time
_PODS: Final = 32  # at a time
_WORDS: Final = 200  # bytes of the parser's own words


@dataclass(frozen=True)
class _Target:
    """What is read of a service: its pods together, so that its revisions are measured at the same moments."""

    pods: Mapping[str, Pod]  # by uid
    models: Mapping[str, str]  # Triton's name of the model, by revision


@dataclass(frozen=True)
class _Counts:
    """Counters of a revision up to the last reading."""

    accumulator: CounterAccumulator
    history: History = field(default_factory=History)


class Counters:
    """Reads pods' metrics over the pod network; calls `enqueue` when the totals of a revision have changed."""

    def __init__(
        self,
        enqueue: Callable[[ServiceKey], None],
        reader: Reader | None = None,
        clock: Callable[[], float] = time.time,
        port: int = names.METRICS_PORT,
        period: float = PERIOD,
    ) -> None:
        self._clock = clock
        self._port = port
        self._limiter = FairLimiter(_PODS)
        self._reader = reader or Reader()
        self._poller = Poller[ServiceKey, _Target, Mapping[str, _Counts]](
            enqueue, self._poll, FairLimiter(_SERVICES), lambda _: period, lease=_LEASE, is_news=_is_news
        )

    async def close(self) -> None:
        """Cancel the readings."""
        self._poller.close()

    def request(self, key: ServiceKey, pods: Iterable[Pod], models: Mapping[str, str]) -> Mapping[str, History]:
        """Return the histories of these revisions by name, and keep reading their pods.

        Args:
            key: the service.
            pods: of the service; those without an address, or that serve other revisions, are not read.
            models: Triton's name of the model, by revision. All other revisions are forgotten.
        """
        read = {pod.uid: pod for pod in pods if pod.ip and pod.revision in models and not pod.is_changing}
        found = self._poller.request(key, {key: _Target(read, dict(models))} if models else {})
        return {revision: counts.history for revision, counts in found.get(key, {}).items() if revision in models}

    async def _poll(
        self, key: ServiceKey, target: _Target, last: Mapping[str, _Counts] | None
    ) -> Mapping[str, _Counts]:
        """Read all pods of a service once, and return the counters of its revisions."""
        pods = target.pods.values()
        answers = await asyncio.gather(*(self._scrape(key.namespace, pod, target.models[pod.revision]) for pod in pods))
        by_revision: dict[str, dict[str, Scrape | str]] = {}
        for pod, answer in zip(pods, answers, strict=True):
            by_revision.setdefault(pod.revision, {})[pod.uid] = answer
        counts = {revision: known for revision, known in (last or {}).items() if revision in target.models}
        for revision, scraped in by_revision.items():
            counts[revision] = self._add(counts.get(revision) or _Counts(CounterAccumulator()), target, scraped)
        return counts

    def _add(self, counts: _Counts, target: _Target, answers: Mapping[str, Scrape | str]) -> _Counts:
        """Return the counters of a revision after the answers of its pods."""
        accumulator, history = counts.accumulator, counts.history
        accumulator.keep(target.pods.keys())
        scrapes = {uid: answer for uid, answer in answers.items() if isinstance(answer, Scrape)}
        for uid, scrape in scrapes.items():
            accumulator.add(uid, scrape)
        if scrapes:
            return _Counts(accumulator, history.with_totals(accumulator.totals(self._clock())))
        return _Counts(
            accumulator, history.with_error(next(error for error in answers.values() if isinstance(error, str)))
        )

    async def _scrape(self, namespace: str, pod: Pod, model: str) -> Scrape | str:
        """Return the counters that a pod has of its model, or the reason why they cannot be read."""
        try:
            async with self._limiter.turn(namespace):
                page = await read_page(pod.ip, self._port, seconds=_SECONDS)
                return await self._reader.read(namespace, partial(read_metrics, page, model))
        except PageError as error:
            return f"pod {pod.name} {error}"
        except (ValueError, LookupError) as error:
            return f"pod {pod.name} {NOT_A_PAGE}: {clean(str(error), _WORDS)}"


def _is_news(last: Mapping[str, _Counts] | None, counts: Mapping[str, _Counts]) -> bool:
    """Whether a gate's evaluation could change: a first reading, other totals, a new error, or one that is over."""
    before = {revision: _visible(known.history) for revision, known in (last or {}).items()}
    return any(before.get(revision) != _visible(known.history) for revision, known in counts.items())


def _visible(history: History) -> tuple[object, ...]:
    return history.points, history.error, history.read > 0
