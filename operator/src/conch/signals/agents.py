"""Asks the agents of pods that are not settled, in the background: no reconcile ever waits for a pod.

What was told is remembered per service, and a changed answer puts the service on the queue. A pod that does
not answer tells nothing new: silence is no error.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import aiohttp

from conch.api.kinds import ServiceKey
from conch.api.text import read_json
from conch.bodies import read_body
from conch.observe import Pod
from conch.signals.limiter import FairLimiter
from conch.signals.reader import Reader
from conch_contract import AgentReport, names

_TIMEOUT: Final = aiohttp.ClientTimeout(total=3.0)  # seconds; an agent answers from memory
_LIMIT: Final = 1 << 20  # bytes; a report is kilobytes, and the pod is the user's
_AT_ONCE: Final = 64  # questions under way
# Values of a report, counted by their separators. Parsing takes about 1.5 µs for each; a file whose object version is
# reported is one.
_MOST_VALUES: Final = 20_000
_PERIOD: Final = 1.0  # seconds between two questions to a pod; each new answer makes a reconcile, which asks again


@dataclass
class _Known:
    """What is known of a pod."""

    asked: float = -math.inf  # last, of the loop's clock
    report: AgentReport | None = None


class Agents:
    """Asks agents over the pod network; calls `changed` when a service's pods tell something new."""

    def __init__(
        self, changed: Callable[[ServiceKey], None], reader: Reader | None = None, port: int = names.AGENT_PORT
    ) -> None:
        self._changed = changed
        self._port = port
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False)
        self._known: dict[ServiceKey, dict[str, _Known]] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._limiter = FairLimiter(_AT_ONCE)
        self._reader = reader or Reader()

    async def close(self) -> None:
        """Drop the questions and the connections."""
        for task in self._asking.values():
            task.cancel()
        await self._session.close()

    def ask(self, key: ServiceKey, pods: Iterable[Pod]) -> Mapping[str, AgentReport]:
        """Ask these pods anew, and return what is known of them now, by pod uid; of others nothing is kept."""
        asked = list(pods)
        uids = {pod.uid for pod in asked}
        before = self._known.pop(key, {})
        known = {uid: before.get(uid) or _Known() for uid in uids}
        if known:
            self._known[key] = known
        for pod in asked:
            if pod.uid not in self._asking:
                self._asking[pod.uid] = asyncio.create_task(self._ask_one(key, pod))
        return {uid: one.report for uid, one in known.items() if one.report is not None}

    async def _ask_one(self, key: ServiceKey, pod: Pod) -> None:
        loop = asyncio.get_running_loop()
        report = None
        try:
            if known := self._find(key, pod):
                await asyncio.sleep(known.asked + _PERIOD - loop.time())
            async with self._limiter.turn(key.namespace):
                if known := self._find(key, pod):
                    known.asked = loop.time()
                    report = await self._answer(key.namespace, pod)
        finally:
            self._asking.pop(pod.uid, None)
        # The pod may have gone and come back meanwhile, with nothing known of it.
        if report is not None and (known := self._find(key, pod)) and report != known.report:
            known.report = report
            self._changed(key)

    def _find(self, key: ServiceKey, pod: Pod) -> _Known | None:
        return self._known.get(key, {}).get(pod.uid)

    async def _answer(self, namespace: str, pod: Pod) -> AgentReport | None:
        host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
        url = f"http://{host}:{self._port}{names.STATUS_PATH}"
        try:
            async with self._session.get(url, allow_redirects=False) as answer:
                if answer.status != 200:
                    return None
                body = await read_body(answer.content, _LIMIT)
            return await self._reader.read(namespace, partial(read_report, body))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return None


def read_report(body: bytes) -> AgentReport:
    """Return the report in an answer.

    Raises:
        ValueError: it is no report, or has too many values.
    """
    return AgentReport.model_validate(read_json(body, _MOST_VALUES))
