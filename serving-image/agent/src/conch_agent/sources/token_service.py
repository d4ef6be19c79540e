"""Servers that exchange one kind of credentials for temporary ones: Microsoft Entra ID, and AWS's token service.

The agent sends these requests itself, and not the client of the store: the address is checked as that of a store, no
redirect is followed, and the failures have causes and remedies.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
from yarl import URL

from conch_agent.reasons import Failure, Reason
from conch_agent.record import read_text
from conch_agent.sources.answer import Answer, read_body
from conch_agent.sources.connection import (
    ISSUER_REMEDY,
    Problem,
    build_context,
    build_options,
    check_proxy,
    explain,
    name_proxy,
)
from conch_agent.sources.destinations import CheckedResolver, Destinations
from conch_agent.sources.network import NetworkSettings
from conch_agent.sources.proxies import Proxy
from conch_agent.sources.secret_settings import Endpoint
from conch_contract.addresses import Address
from conch_contract.parsing import parse_json

_TIMEOUT: Final = aiohttp.ClientTimeout(total=30, sock_connect=10)
_LONGEST: Final = 64 * 1024
_LONGEST_LIFE: Final = 24 * 3600  # seconds of a token


@dataclass(frozen=True)
class TokenService:
    """One such server.

    Attributes:
        uri: The storageUri, with which messages begin.
        endpoint: The server's address.
        setting: The key of its address in the storage Secret.
        network: Certificates to trust for it, and proxies.
        allowed: Link-local addresses that it may have.
    """

    uri: str
    endpoint: Endpoint
    setting: str
    network: NetworkSettings
    allowed: frozenset[Address] = frozenset()

    async def post(self, path: str, form: Mapping[str, str]) -> str:
        """Return the body of the answer to a form.

        Args:
            path: The path at the server.
            form: The fields of the form.

        Raises:
            RefusedError: The answer has another status than 200.
            Failure: Unreachable, or FetchFailed for an address that is refused.
        """
        return await self._send("POST", path, {}, dict(form))

    async def get(self, path: str, headers: Mapping[str, str]) -> str:
        """Return the body of an answer.

        Args:
            path: The path at the server.
            headers: Headers of the request.

        Raises:
            RefusedError: As in `post`.
            Failure: As in `post`.
        """
        return await self._send("GET", path, headers, None)

    async def _send(self, method: str, path: str, headers: Mapping[str, str], form: dict[str, str] | None) -> str:
        endpoint, proxies = self.endpoint, self.network.find_proxies()
        url = URL(f"{endpoint.url}{path}")
        proxy = proxies.find(url)
        try:
            destinations = Destinations(endpoint.host, self.allowed)
            destinations.check(endpoint.host, ())
            connector = aiohttp.TCPConnector(
                resolver=CheckedResolver(destinations, proxies.addresses), ssl=build_context(self.network.authorities)
            )
            async with (
                aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT) as session,
                session.request(method, url, data=form, **build_options(url, headers, proxy)) as answer,
            ):
                check_proxy(answer, proxy)
                body = bytearray()
                async for chunk in answer.content.iter_chunked(_LONGEST):
                    body += chunk
                    if len(body) > _LONGEST:
                        break
                status, phrase, text = answer.status, answer.reason or "", body.decode(errors="replace").strip()
        except (aiohttp.ClientError, TimeoutError) as error:
            problem = self._explain(error, proxy)
            remedy = ISSUER_REMEDY if problem.is_untrusted else problem.remedy
            raise self.build_failure(f"cannot be reached: {problem.cause}", remedy, Reason.UNREACHABLE) from None
        except ValueError as error:  # of the address
            raise self.build_failure(f"is refused: {error}", f"Correct {self.setting}") from None
        if status != 200:
            raise RefusedError(read_body(status, phrase, text))
        return text

    def _explain(self, error: aiohttp.ClientError | TimeoutError, proxy: Proxy | None) -> Problem:
        """Return the cause of a request without an answer. The time of a connection is limited apart from that."""
        host, port = self.endpoint.host, self.endpoint.port
        if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ServerTimeoutError):
            cause = f"{host}:{port} did not answer within {_TIMEOUT.total:g} s"
            return name_proxy(Problem(cause, "Read the server's log; the agent tries again"), proxy)
        return explain(error, host, port, proxy)

    def build_refused(self, answer: Answer, whom: str, remedy: str) -> Failure:
        """Return the failure of an answer with another status than 200.

        Args:
            answer: The answer.
            whom: What the server has refused, such as `the service principal`.
            remedy: What to do about that.
        """
        words, status = answer.words, answer.status_line
        if 400 <= answer.status < 500 and answer.status != 404 and not answer.is_outage:
            return self.build_failure(f"refused {whom} ({words})", remedy, Reason.ACCESS_DENIED)
        cause = f"answered {status}" + ("" if words == status else f" ({words})")
        if answer.is_outage:
            return self.build_failure(cause, "The agent tries again", is_outage=True)
        return self.build_failure(cause, f"Correct {self.setting}")

    def build_failure(
        self, cause: str, remedy: str, reason: Reason = Reason.FETCH_FAILED, *, is_outage: bool = False
    ) -> Failure:
        """Return a failure of the exchange.

        Args:
            cause: What follows the server's address in the message.
            remedy: What to do, without a full stop.
            reason: The reason.
            is_outage: As in Failure.
        """
        message = f"{self.uri}: {self.endpoint.url}, which issues the tokens, {cause}. {remedy}."
        return Failure(reason, message, is_outage=is_outage)


def read_pod_token(uri: str, file: Path, variable: str) -> str:
    """Return the token of the pod's service account.

    Args:
        uri: The storageUri, with which the message begins.
        file: Its file, which the kubelet renews.
        variable: The variable that names the file.

    Raises:
        Failure: AccessDenied: it cannot be read, or has another text.
    """
    try:
        token = read_text(file.resolve(), _LONGEST).strip()
    except (OSError, ValueError) as error:
        problem = str(error)
    else:
        if re.fullmatch(r"[!-~]+", token):
            return token
        problem = f"{file} is empty, or has more than one word"
    message = f"{uri}: the token of {variable} cannot be read: {problem}. Start the pod anew."
    raise Failure(Reason.ACCESS_DENIED, message)


def parse_token_answer(service: TokenService, body: str, now: dt.datetime) -> tuple[str, dt.datetime]:
    """Return the token of an answer of OAuth 2.0 (RFC 6749, section 5.1), and when it expires.

    Args:
        service: The server that has answered.
        body: The answer.
        now: The time.

    Raises:
        Failure: FetchFailed: it has none.
    """
    try:
        fields = parse_json(body)
        token, seconds = fields["access_token"], float(fields["expires_in"])
        if not (isinstance(token, str) and re.fullmatch(r"[!-~]+", token) and seconds > 0):
            raise TypeError  # noqa: TRY301  as for other answers without a token
        return token, now + dt.timedelta(seconds=min(seconds, _LONGEST_LIFE))
    except (ValueError, TypeError, LookupError, OverflowError):
        raise service.build_failure("answered without a token", f"Correct {service.setting}") from None


class RefusedError(Exception):
    """The server has answered with another status than 200."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.words)
        self.answer = answer
