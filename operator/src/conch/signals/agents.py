"""Asks the agents of pods that are not settled. A pod that does not answer tells nothing: silence is no error."""

import asyncio
from collections.abc import Iterable
from typing import Final

import aiohttp
from pydantic import ValidationError

from conch.observe import Pod
from conch_contract import AgentReport, names

_TIMEOUT: Final = aiohttp.ClientTimeout(total=2.0)  # seconds; an agent answers from memory
_LIMIT: Final = 1 << 20  # bytes; a report is kilobytes, and the pod is the user's


class Agents:
    """Asks agents over the pod network."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False)

    async def close(self) -> None:
        """Drop the connections."""
        await self._session.close()

    async def ask(self, pods: Iterable[Pod]) -> dict[str, AgentReport]:
        """Return the reports of the pods that answered, by pod uid."""
        asked = list(pods)
        answers = await asyncio.gather(*(self._ask_one(pod) for pod in asked))
        return {pod.uid: report for pod, report in zip(asked, answers, strict=True) if report is not None}

    async def _ask_one(self, pod: Pod) -> AgentReport | None:
        host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
        try:
            url = f"http://{host}:{names.AGENT_PORT}{names.STATUS_PATH}"
            async with self._session.get(url, allow_redirects=False) as answer:
                if answer.status != 200:
                    return None
                return AgentReport.model_validate_json(await answer.content.read(_LIMIT))
        except (aiohttp.ClientError, TimeoutError, OSError, ValidationError):
            return None
