"""Collects all measurements that gates evaluate, from pods and from Prometheus."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from conch.api.kinds import ServiceKey
from conch.decide import MeasurementRequest
from conch.observe import Pod
from conch.observe.measured import History, Measured
from conch.signals.counters import Counters
from conch.signals.prometheus import Queries
from conch.signals.reader import Reader


class Collector:
    """Collects measurements in the background; calls `enqueue` with a service that has a new one."""

    def __init__(
        self,
        enqueue: Callable[[ServiceKey], None],
        reader: Reader | None = None,
        clock: Callable[[], float] = time.time,
        prometheus_servers: Sequence[str] = (),
    ) -> None:
        reader = reader or Reader()
        self._counters = Counters(enqueue, reader, clock)
        self._queries = Queries(enqueue, reader, clock, servers=prometheus_servers)

    async def close(self) -> None:
        """Cancel the requests and close the connections."""
        await self._counters.close()
        await self._queries.close()

    def request(self, key: ServiceKey, pods: Iterable[Pod], request: MeasurementRequest) -> Mapping[str, Measured]:
        """Return the known measurements of a service by revision, and collect new ones; an empty request forgets it."""
        histories = self._counters.request(key, pods, request.models)
        answers = self._queries.request(key, request.queries)
        return {
            name: Measured(
                histories.get(name, History()),
                {gate: answer for (revision, gate), answer in answers.items() if revision == name},
            )
            for name in request.models
        }
