"""Reads the reports of agents in pods that are not settled. A pod that does not answer changes nothing."""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

from conch.api.kinds import ServiceKey
from conch.api.text import read_json
from conch.decide import ReportRequest
from conch.signals.limiter import FairLimiter
from conch.signals.page import PageError, read_page
from conch.signals.poller import Poller
from conch.signals.reader import Reader
from conch_contract import AgentReport, names

_SECONDS: Final = 3.0  # for a report; an agent answers from memory
_POLLS: Final = 64  # pods at a time
# Values of a report, counted by their separators. Parsing takes about 1.5 µs for each; a file whose object version is
# reported is one.
_MAX_VALUES: Final = 20_000


class Agents:
    """Polls agents over the pod network; calls `enqueue` when a pod of a service has a new report."""

    def __init__(
        self, enqueue: Callable[[ServiceKey], None], reader: Reader | None = None, port: int = names.AGENT_PORT
    ) -> None:
        self._port = port
        self._reader = reader or Reader()
        self._poller = Poller[str, ReportRequest, AgentReport](
            enqueue, self._poll, FairLimiter(_POLLS), period=lambda request: request.period, lease=math.inf
        )

    async def close(self) -> None:
        """Cancel the polls."""
        self._poller.close()

    def request(self, key: ServiceKey, requests: Iterable[ReportRequest]) -> Mapping[str, AgentReport]:
        """Return the known reports by the uids of their pods.

        The pods are polled until the service requests others, or none.
        """
        return self._poller.request(key, {request.pod.uid: request for request in requests})

    async def _poll(self, key: ServiceKey, request: ReportRequest, _: AgentReport | None) -> AgentReport | None:
        try:
            page = await read_page(request.pod.ip, self._port, names.STATUS_PATH, seconds=_SECONDS)
            return await self._reader.read(key.namespace, partial(read_report, page))
        except (PageError, ValueError):
            return None


def read_report(body: str | bytes) -> AgentReport:
    """Return the report in the answer of an agent.

    Raises:
        ValueError: the answer is no report, or has too many values.
    """
    return AgentReport.model_validate(read_json(body, _MAX_VALUES))
