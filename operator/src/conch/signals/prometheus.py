"""Asks the user's Prometheus, in the background: no reconcile ever waits for an answer.

One instant query of its HTTP API (`POST /api/v1/query`). The operator asks where a user points it, so it is
careful: no redirect is followed, no link-local address (a cloud's metadata) is asked, and of an answer that is
not Prometheus' own nothing is repeated.
"""

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Final, TypeVar

import aiohttp
from yarl import URL

from conch.api.kinds import ServiceKey
from conch.api.text import clean, read_json
from conch.bodies import TooLargeError, read_body
from conch.observe.measured import Answer, Question
from conch.signals.limiter import FairLimiter
from conch.signals.reader import Reader
from conch.signals.resolver import Resolver
from conch_contract.addresses import check_address

_LIMIT: Final = 256 << 10  # bytes; one number is a hundred
_MOST_VALUES: Final = 10_000  # of an answer, counted by their separators
_AT_ONCE: Final = 32  # questions under way
_GRACE: Final = 0.5  # seconds beyond its timeout in which a server may say itself that it was too slow
_WORDS: Final = 500  # bytes of the server's own words
_REMEMBERED: Final = 3600.0  # seconds that an answer is kept for a service that asks no more

Name = TypeVar("Name")  # what whoever asks calls a question by


class Queries:
    """Asks questions; calls `changed` with each answer."""

    def __init__(
        self,
        changed: Callable[[ServiceKey], None],
        reader: Reader | None = None,
        clock: Callable[[], float] = time.time,
        servers: Sequence[str] = (),
    ) -> None:
        """Prepare it.

        Args:
            changed: called with the service whose question has an answer.
            reader: parses the answers; None: one of its own.
            clock: in seconds since the epoch.
            servers: those that are allowed, as `host:port` with `*` for any part; none: all.
        """
        self._changed = changed
        self._servers = tuple(servers)
        self._clock = clock
        self._reader = reader or Reader()
        self._resolver = Resolver(_AT_ONCE)
        # Without a cache: with it, a question waits for the lookup of the same name that another namespace has begun.
        connector = aiohttp.TCPConnector(resolver=self._resolver, use_dns_cache=False)
        self._session = aiohttp.ClientSession(connector=connector, trust_env=False)
        self._told: dict[ServiceKey, dict[Question, Answer]] = {}
        self._asking: dict[tuple[ServiceKey, Question], asyncio.Task[None]] = {}
        self._limiter = FairLimiter(_AT_ONCE)

    async def close(self) -> None:
        """Drop the questions and the connections."""
        for task in self._asking.values():
            task.cancel()
        await self._session.close()

    def ask(self, key: ServiceKey, questions: Mapping[Name, Question]) -> Mapping[Name, Answer]:
        """Ask what was not answered within its interval, and return the last answers, by the names given.

        What is asked no more is forgotten; an empty mapping forgets the service.
        """
        now = self._clock()
        wanted = set(questions.values())
        told = {question: answer for question, answer in self._told.get(key, {}).items() if question in wanted}
        self._told[key] = told
        self._prune(now)
        for other, question in [one for one in self._asking if one[0] == key]:
            if question not in wanted:
                self._asking.pop((other, question)).cancel()
        for question in wanted:
            answer = told.get(question)
            due = answer is None or not 0 <= now - answer.time < question.interval
            if due and (key, question) not in self._asking:
                self._asking[key, question] = asyncio.create_task(self._ask_one(key, question))
        return {name: told[question] for name, question in questions.items() if question in told}

    def _prune(self, now: float) -> None:
        """Forget services that ask nothing, and those that stopped asking."""
        for key, told in list(self._told.items()):
            if all(now - answer.time > _REMEMBERED for answer in told.values()):
                del self._told[key]

    async def _ask_one(self, key: ServiceKey, question: Question) -> None:
        try:
            async with self._limiter.turn(key.namespace):
                self._resolver.namespace.set(key.namespace)
                answer = await self._answer(key.namespace, question)
        finally:
            if self._asking.get((key, question)) is asyncio.current_task():  # else it was forgotten, and asked again
                del self._asking[key, question]
        self._told.setdefault(key, {})[question] = replace(answer, error=clean(answer.error))
        self._changed(key)

    def _check_server(self, url: URL) -> None:
        """Refuse a server that the installer does not allow.

        Raises:
            ValueError: it is not among those.
        """
        address = f"{url.host}:{url.port}".lower()
        if self._servers and not any(fnmatchcase(address, server.lower()) for server in self._servers):
            allowed = ", ".join(self._servers)
            raise ValueError(f"the installer allows {allowed} (value analysis.prometheusServers of the chart)")

    async def _answer(self, namespace: str, question: Question) -> Answer:
        form = {"query": question.query, "timeout": f"{question.timeout:g}s"}
        try:
            base = URL(question.server)
            url = base.with_path(f"{base.path.rstrip('/')}/api/v1/query")
            self._check_server(base)
            check_address(base.host or "")
            async with asyncio.timeout(question.timeout + _GRACE):
                async with self._session.post(url, data=form, allow_redirects=False) as reply:
                    body = await read_body(reply.content, _LIMIT)
            return await self._reader.read(namespace, partial(read_answer, self._clock(), reply.status, body))
        except TooLargeError:
            return Answer(self._clock(), error=f"the answer is above {_LIMIT >> 10} KiB")
        except TimeoutError:
            return Answer(
                self._clock(), error=f"{question.server} did not answer within {question.timeout:g} s, DNS included"
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            words = str(error) or type(error).__name__
            return Answer(self._clock(), error=f"{question.server} cannot be asked: {words}")


def read_answer(moment: float, status: int, body: bytes) -> Answer:
    """Read an answer of Prometheus' HTTP API (https://prometheus.io/docs/prometheus/latest/querying/api/).

    A scalar and a vector of one element are a number; all else is told in a sentence.
    """
    try:
        reply: Any = read_json(body, _MOST_VALUES)
        if reply["status"] == "error":
            words = clean(f"{reply['errorType']}: {reply['error']}", _WORDS)
            return Answer(moment, error=f"Prometheus refuses the query: {words}")
        kind, result = reply["data"]["resultType"], reply["data"]["result"]
        if kind == "scalar":
            return _number(moment, result[1])
        if kind == "vector" and len(result) == 1:
            return _number(moment, result[0]["value"][1])
        return Answer(moment, error=_not_one_number(kind, len(result)))
    except (ValueError, LookupError, TypeError):
        why = "is not that of a Prometheus, or has too many values"
        return Answer(moment, error=f"the answer (HTTP status {status}) {why}")


def _not_one_number(kind: str, count: int) -> str:
    if kind != "vector":
        return f"the query answers a {kind}, not one number; make it an instant vector"
    if count == 0:
        return "the query answers nothing: no series matches it at this moment"
    return f"the query answers {count} series, not one number; aggregate them, such as with sum() or max()"


def _number(moment: float, text: object) -> Answer:
    if not isinstance(text, str):
        raise TypeError("Prometheus writes numbers as texts")
    value = float(text)
    if math.isnan(value):
        return Answer(moment, error="the query answers NaN, which is no number; most often a division of 0 by 0")
    return Answer(moment, value=value)
