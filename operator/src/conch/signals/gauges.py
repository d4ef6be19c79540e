"""All that gates look at, from pods and from Prometheus, as one value."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from conch.api.kinds import ServiceKey
from conch.decide import ToMeasure
from conch.observe import Pod
from conch.observe.measured import History, Measured
from conch.signals.counters import Counters
from conch.signals.prometheus import Queries
from conch.signals.reader import Reader


class Gauges:
    """Asks what is to be measured, in the background; calls `changed` with the service that has news."""

    def __init__(
        self,
        changed: Callable[[ServiceKey], None],
        reader: Reader | None = None,
        clock: Callable[[], float] = time.time,
        prometheus_servers: Sequence[str] = (),
    ) -> None:
        reader = reader or Reader()
        self._counters = Counters(changed, reader, clock)
        self._queries = Queries(changed, reader, clock, servers=prometheus_servers)

    async def close(self) -> None:
        """Drop what is under way."""
        await self._counters.close()
        await self._queries.close()

    def ask(self, key: ServiceKey, pods: Iterable[Pod], wanted: ToMeasure) -> Mapping[str, Measured]:
        """Return what is known of a service's candidates, by revision; where nothing is asked, nothing is kept."""
        histories = self._counters.ask(key, pods, wanted.models)
        answers = self._queries.ask(key, wanted.questions)
        return {
            name: Measured(
                histories.get(name, History()),
                {gate: answer for (revision, gate), answer in answers.items() if revision == name},
            )
            for name in wanted.models
        }
