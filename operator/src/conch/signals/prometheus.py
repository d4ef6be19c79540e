"""Sends the queries of gates to the user's Prometheus.

A query is one instant query of its HTTP API (`POST /api/v1/query`). A user names the server, so the client is careful:
it follows no redirect, sends nothing to a link-local address (a cloud's metadata server), and repeats nothing of an
answer that is not Prometheus' own.
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
from conch.observe.measured import Answer, PrometheusQuery
from conch.signals.limiter import FairLimiter
from conch.signals.poller import Poller
from conch.signals.reader import Reader
from conch.signals.resolver import Resolver
from conch_contract.addresses import check_address

_LIMIT: Final = 256 << 10  # bytes; one number is a hundred
_MAX_VALUES: Final = 10_000  # of an answer, counted by their separators
_POLLS: Final = 32  # queries at a time
_GRACE: Final = 0.5  # seconds beyond its timeout in which a server may answer that it was too slow
_WORDS: Final = 500  # bytes of the server's own words

Name = TypeVar("Name")  # of a query, to the caller


class Queries:
    """Sends queries; calls `enqueue` with the service of each answer."""

    def __init__(
        self,
        enqueue: Callable[[ServiceKey], None],
        reader: Reader | None = None,
        clock: Callable[[], float] = time.time,
        servers: Sequence[str] = (),
    ) -> None:
        """Prepare a client without queries.

        Args:
            enqueue: called with the service whose query has an answer.
            reader: parses the answers; None: one of its own.
            clock: in seconds since the epoch.
            servers: those that are allowed, as `host:port` with `*` for any part; none: all.
        """
        self._servers = tuple(servers)
        self._clock = clock
        self._reader = reader or Reader()
        self._resolver = Resolver(_POLLS)
        # Without a cache: with it, a query waits for the lookup of the same name that another namespace has begun.
        connector = aiohttp.TCPConnector(resolver=self._resolver, use_dns_cache=False)
        self._session = aiohttp.ClientSession(connector=connector, trust_env=False)
        self._poller = Poller[PrometheusQuery, PrometheusQuery, Answer](
            enqueue, self._poll, FairLimiter(_POLLS), period=lambda query: query.interval
        )

    async def close(self) -> None:
        """Cancel the queries and close the connections."""
        self._poller.close()
        await self._session.close()

    def request(self, key: ServiceKey, queries: Mapping[Name, PrometheusQuery]) -> Mapping[Name, Answer]:
        """Return the last answers by the names of their queries, and send the queries whose interval is over.

        All other queries of the service are forgotten.
        """
        answers = self._poller.request(key, {query: query for query in queries.values()})
        return {name: answers[query] for name, query in queries.items() if query in answers}

    async def _poll(self, key: ServiceKey, query: PrometheusQuery, _: Answer | None) -> Answer:
        self._resolver.namespace.set(key.namespace)
        answer = await self._answer(key.namespace, query)
        return replace(answer, error=clean(answer.error))

    def _check_server(self, url: URL) -> None:
        """Refuse a server that the installer does not allow.

        Raises:
            ValueError: it is not among those.
        """
        address = f"{url.host}:{url.port}".lower()
        if self._servers and not any(fnmatchcase(address, server.lower()) for server in self._servers):
            allowed = ", ".join(self._servers)
            raise ValueError(f"the installer allows {allowed} (value analysis.prometheusServers of the chart)")

    async def _answer(self, namespace: str, query: PrometheusQuery) -> Answer:
        form = {"query": query.query, "timeout": f"{query.timeout:g}s"}
        try:
            base = URL(query.server)
            url = base.with_path(f"{base.path.rstrip('/')}/api/v1/query")
            self._check_server(base)
            check_address(base.host or "")
            async with asyncio.timeout(query.timeout + _GRACE):
                async with self._session.post(url, data=form, allow_redirects=False) as reply:
                    body = await read_body(reply.content, _LIMIT)
            return await self._reader.read(namespace, partial(read_answer, self._clock(), reply.status, body))
        except TooLargeError:
            return Answer(self._clock(), error=f"the answer is above {_LIMIT >> 10} KiB")
        except TimeoutError:
            return Answer(
                self._clock(), error=f"{query.server} did not answer within {query.timeout:g} s, DNS included"
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            words = str(error) or type(error).__name__
            return Answer(self._clock(), error=f"{query.server} cannot be queried: {words}")


def read_answer(moment: float, status: int, body: bytes) -> Answer:
    """Read an answer of Prometheus' HTTP API (https://prometheus.io/docs/prometheus/latest/querying/api/).

    A scalar and a vector of one element are a number; every other answer is an error, in a sentence.
    """
    try:
        reply: Any = read_json(body, _MAX_VALUES)
        if reply["status"] == "error":
            words = clean(f"{reply['errorType']}: {reply['error']}", _WORDS)
            return Answer(moment, error=f"Prometheus refuses the query: {words}")
        kind, result = reply["data"]["resultType"], reply["data"]["result"]
        if kind == "scalar":
            return _read_number(moment, result[1])
        if kind == "vector" and len(result) == 1:
            return _read_number(moment, result[0]["value"][1])
        return Answer(moment, error=_describe_result(kind, len(result)))
    except (ValueError, LookupError, TypeError):
        why = "is not that of a Prometheus, or has too many values"
        return Answer(moment, error=f"the answer (HTTP status {status}) {why}")


def _describe_result(kind: str, count: int) -> str:
    if kind != "vector":
        return f"the query answers a {kind}, not one number; make it an instant vector"
    if count == 0:
        return "the query answers nothing: no series matches it at this moment"
    return f"the query answers {count} series, not one number; aggregate them, such as with sum() or max()"


def _read_number(moment: float, text: object) -> Answer:
    if not isinstance(text, str):
        raise TypeError("Prometheus writes numbers as texts")
    value = float(text)
    if math.isnan(value):
        return Answer(moment, error="the query answers NaN, which is no number; most often a division of 0 by 0")
    return Answer(moment, value=value)
