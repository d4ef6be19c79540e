"""From the counters of pods that come, restart and go to totals of a revision that never fall.

As Prometheus' `increase`: what a series grew since its pod was last read is added; a series below its last
value began anew at zero. What a pod had counted before it was first read belongs to no window.
"""

from collections.abc import Collection, Mapping

from conch.observe.measured import Quantiles, Totals, max_quantiles
from conch.triton.metrics import DURATION_US, FAILURE, QUEUE_US, SUCCESS, Scrape, Series, compute_growth, grow


class CounterAccumulator:
    """Adds up one revision."""

    def __init__(self) -> None:
        self._seen: dict[str, Mapping[Series, float]] = {}
        self._quantiles: dict[str, Quantiles] = {}
        self._sums: dict[str, float] = {}
        self._seen_parts: dict[str, Mapping[str, float]] = {}
        self._parts: dict[str, float] = {}

    def add(self, uid: str, scrape: Scrape) -> None:
        """Add the counters of a pod."""
        before = self._seen.get(uid)
        if before is not None:
            for metric, grown in compute_growth(before, scrape.counters).items():
                self._sums[metric] = self._sums.get(metric, 0.0) + grown
            known = self._seen_parts[uid]
            for part, value in scrape.parts.items():
                self._parts[part] = self._parts.get(part, 0.0) + grow(known.get(part, 0.0), value)
        self._seen[uid] = scrape.counters
        self._seen_parts[uid] = scrape.parts
        self._quantiles[uid] = scrape.quantiles

    def keep(self, uids: Collection[str]) -> None:
        """Forget all other pods; what they did stays in the totals."""
        for uid in [uid for uid in self._seen if uid not in uids]:
            del self._seen[uid], self._seen_parts[uid], self._quantiles[uid]

    def totals(self, moment: float) -> Totals:
        """Return the revision's totals at that moment."""
        failures = round(self._sums.get(FAILURE, 0.0))
        return Totals(
            time=moment,
            requests=round(self._sums.get(SUCCESS, 0.0)) + failures,
            failures=failures,
            duration_us=self._sums.get(DURATION_US, 0.0),
            queue_us=self._sums.get(QUEUE_US, 0.0),
            quantiles=max_quantiles(list(self._quantiles.values())),
            parts=tuple(self._parts.items()),
        )
