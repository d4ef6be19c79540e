"""Reads Triton's counters from pods of services with a rollout under way: no reconcile ever waits for a pod.

A service is read every few seconds while somebody asks for it. Whoever asks is woken when there is news, and
now and then without; who does not ask again is forgotten. A pod that does not answer is no data, not zero.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import aiohttp

from conch.api.kinds import ServiceKey
from conch.api.text import clean
from conch.observe import Pod
from conch.observe.measured import History
from conch.signals.limiter import FairLimiter
from conch.signals.page import NOT_A_PAGE, PageError, page
from conch.signals.reader import Reader
from conch.signals.tally import Tally
from conch.triton.metrics import Scrape, read_metrics
from conch_contract import names

PERIOD: Final = 2.0  # seconds between two readings of a service
_LEASE: Final = 60.0  # seconds that one question keeps a service read; at half of it the asker is woken
_TIMEOUT: Final = aiohttp.ClientTimeout(total=3.0)  # seconds; Triton answers from memory
_AT_ONCE: Final = 32  # pods being read
_WORDS: Final = 200  # bytes of the parser's own words


@dataclass
class _Watch:
    """One service that is read."""

    pods: dict[str, Pod] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    asked: float = 0.0  # of the loop's clock
    tallies: dict[str, Tally] = field(default_factory=dict)
    histories: dict[str, History] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None


class Counters:
    """Reads pods' metrics over the pod network; calls `changed` when a revision's totals moved."""

    def __init__(
        self,
        changed: Callable[[ServiceKey], None],
        reader: Reader | None = None,
        clock: Callable[[], float] = time.time,
        port: int = names.METRICS_PORT,
        period: float = PERIOD,
    ) -> None:
        self._changed = changed
        self._clock = clock
        self._port = port
        self._period = period
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False)
        self._watches: dict[ServiceKey, _Watch] = {}
        self._limiter = FairLimiter(_AT_ONCE)
        self._reader = reader or Reader()

    async def close(self) -> None:
        """Stop reading."""
        for key in list(self._watches):
            self._forget(key)
        await self._session.close()

    def ask(self, key: ServiceKey, pods: Iterable[Pod], models: Mapping[str, str]) -> Mapping[str, History]:
        """Have these pods read from now on, and return what is known of their revisions, by name.

        Args:
            key: the service.
            pods: where to read; those without an address, or of other revisions, are passed over.
            models: the model's name in Triton, by revision. Of other revisions nothing is kept; empty: of none.
        """
        if not models:
            self._forget(key)
            return {}
        asked = {pod.uid: pod for pod in pods if pod.ip and pod.revision in models}
        watch = self._watches.setdefault(key, _Watch())
        watch.pods, watch.models, watch.asked = asked, dict(models), asyncio.get_running_loop().time()
        for revision in [revision for revision in watch.tallies if revision not in models]:
            del watch.tallies[revision]
            watch.histories.pop(revision, None)
        if watch.task is None or watch.task.done():
            watch.task = asyncio.create_task(self._read_on(key, watch))
        return dict(watch.histories)

    def _forget(self, key: ServiceKey) -> None:
        watch = self._watches.pop(key, None)
        if watch is not None and watch.task is not None:
            watch.task.cancel()

    async def _read_on(self, key: ServiceKey, watch: _Watch) -> None:
        """Read a service until nobody asks for it any more."""
        loop = asyncio.get_running_loop()
        while (idle := loop.time() - watch.asked) < _LEASE:
            if await self._read(key.namespace, watch) or idle > _LEASE / 2:
                self._changed(key)
            await asyncio.sleep(self._period)
        if self._watches.get(key) is watch:
            del self._watches[key]

    async def _read(self, namespace: str, watch: _Watch) -> bool:
        """Read all pods of a service once; return whether there is news."""
        asked = list(watch.pods.values())
        scraped = await asyncio.gather(
            *(self._scrape(namespace, pod, watch.models.get(pod.revision, "")) for pod in asked)
        )
        by_revision: dict[str, dict[str, Scrape | str]] = {}
        for pod, answer in zip(asked, scraped, strict=True):
            by_revision.setdefault(pod.revision, {})[pod.uid] = answer
        before = dict(watch.histories)
        for revision, answers in by_revision.items():
            if revision in watch.models:  # else it was forgotten meanwhile
                self._take_in(watch, revision, answers)
        return any(_news(before.get(revision), history) for revision, history in watch.histories.items())

    def _take_in(self, watch: _Watch, revision: str, answers: Mapping[str, Scrape | str]) -> None:
        tally = watch.tallies.setdefault(revision, Tally())
        tally.keep(watch.pods.keys())
        history = watch.histories.get(revision, History())
        scrapes = {uid: answer for uid, answer in answers.items() if isinstance(answer, Scrape)}
        for uid, scrape in scrapes.items():
            tally.add(uid, scrape)
        if scrapes:
            watch.histories[revision] = history.grown(tally.totals(self._clock()))
        else:
            trouble = next(answer for answer in answers.values() if isinstance(answer, str))
            watch.histories[revision] = history.unread(trouble)

    async def _scrape(self, namespace: str, pod: Pod, model: str) -> Scrape | str:
        """Return what a pod tells of its model, or why it tells nothing."""
        try:
            async with self._limiter.turn(namespace):
                text = await page(self._session, pod.ip, self._port)
                return await self._reader.read(namespace, partial(read_metrics, text, model))
        except PageError as error:
            return f"pod {pod.name} {error}"
        except (ValueError, LookupError) as error:
            return f"pod {pod.name} {NOT_A_PAGE}: {clean(str(error), _WORDS)}"


def _news(before: History | None, after: History) -> bool:
    """Whether a gate could see a difference: the first reading, other totals, or a trouble that came or went."""
    if before is None:
        return True
    return (before.points, before.trouble, before.read > 0) != (after.points, after.trouble, after.read > 0)
