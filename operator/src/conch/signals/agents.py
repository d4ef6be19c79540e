"""Reads the reports of agents in pods that are not settled. A pod that does not answer changes nothing."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

import aiohttp

from conch.api.kinds import ServiceKey
from conch.api.text import read_json
from conch.observe import Pod
from conch.signals.limiter import FairLimiter
from conch.signals.page import PageError, read_page
from conch.signals.poller import Poller
from conch.signals.reader import Reader
from conch_contract import AgentReport, names

_TIMEOUT: Final = aiohttp.ClientTimeout(total=3.0)  # seconds; an agent answers from memory
_POLLS: Final = 64  # pods at a time
# Values of a report, counted by their separators. Parsing takes about 1.5 µs for each; a file whose object version is
# reported is one.
_MAX_VALUES: Final = 20_000
_PERIOD: Final = 1.0  # seconds between two polls of a pod; each new report makes a reconcile, which requests the next


class Agents:
    """Polls agents over the pod network; calls `enqueue` when a pod of a service has a new report."""

    def __init__(
        self, enqueue: Callable[[ServiceKey], None], reader: Reader | None = None, port: int = names.AGENT_PORT
    ) -> None:
        self._port = port
        self._reader = reader or Reader()
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False)
        self._poller = Poller[str, Pod, AgentReport](
            enqueue, self._poll, FairLimiter(_POLLS), period=lambda _: _PERIOD, defers=True
        )

    async def close(self) -> None:
        """Cancel the polls and close the connections."""
        self._poller.close()
        await self._session.close()

    def request(self, key: ServiceKey, pods: Iterable[Pod]) -> Mapping[str, AgentReport]:
        """Return the known reports of these pods by uid, and poll the pods; forget all other pods of the service."""
        return self._poller.request(key, {pod.uid: pod for pod in pods})

    async def _poll(self, key: ServiceKey, pod: Pod, _: AgentReport | None) -> AgentReport | None:
        try:
            page = await read_page(self._session, pod.ip, self._port, names.STATUS_PATH)
            return await self._reader.read(key.namespace, partial(read_report, page))
        except (PageError, ValueError):
            return None


def read_report(body: str | bytes) -> AgentReport:
    """Return the report in the answer of an agent.

    Raises:
        ValueError: the answer is no report, or has too many values.
    """
    return AgentReport.model_validate(read_json(body, _MAX_VALUES))
