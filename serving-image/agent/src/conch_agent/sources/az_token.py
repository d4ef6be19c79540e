"""Tokens of a service principal: the client credentials flow of Microsoft Entra ID (OAuth 2.0, RFC 6749, section 4.4).

The agent requests them itself, and not the client of the store: the address is checked as that of a store, no redirect
is followed, and the failures have causes and remedies. The protocol is in
https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.answer import Answer, read_body
from conch_agent.sources.az_credentials import ServicePrincipal
from conch_agent.sources.connection import build_context, explain
from conch_agent.sources.destinations import CheckedResolver, Destinations
from conch_contract.parsing import parse_json

if TYPE_CHECKING:
    from obstore.store import AzureBearerToken

_SCOPE: Final = "https://storage.azure.com/.default"
_TIMEOUT: Final = aiohttp.ClientTimeout(total=30, sock_connect=10)
_LONGEST: Final = 64 * 1024
_MARGIN: Final = dt.timedelta(minutes=6)  # the client requests another token five minutes before one expires
_LONGEST_LIFE: Final = 24 * 3600  # seconds
_CODE: Final = re.compile(r"AADSTS\d+")
# Remedies by code: https://learn.microsoft.com/entra/identity-platform/reference-error-codes
_REMEDIES: Final = {
    "AADSTS7000215": "Write the value of a client secret, not its id, as AZURE_CLIENT_SECRET",
    "AADSTS7000222": "The client secret has expired: make another one, and write it as AZURE_CLIENT_SECRET",
    "AADSTS700016": "The tenant has no such application: correct AZURE_CLIENT_ID or AZURE_TENANT_ID",
    "AADSTS90002": "Correct AZURE_TENANT_ID, or AZURE_AUTHORITY_HOST for a tenant of another cloud",
    "AADSTS900023": "Correct AZURE_TENANT_ID, or AZURE_AUTHORITY_HOST for a tenant of another cloud",
}


class TokenSource:
    """Returns the token of a service principal, and requests another one before it expires."""

    def __init__(self, uri: str, principal: ServicePrincipal, authorities: str | None) -> None:
        """Create the source.

        Args:
            uri: The storageUri, with which messages begin.
            principal: The service principal.
            authorities: PEM certificates to trust for the authority beside those of the image.
        """
        self._uri = uri
        self._principal = principal
        self._authorities = authorities
        self._lock = asyncio.Lock()
        self._token: AzureBearerToken | None = None

    async def read(self) -> AzureBearerToken:
        """Return a token that is valid for at least `_MARGIN`.

        Raises:
            Failure: AccessDenied where the authority refuses the credentials, Unreachable, or FetchFailed for other
                answers.
        """
        async with self._lock:
            now = dt.datetime.now(dt.UTC)
            if self._token is None or (self._token["expires_at"] or now) < now + _MARGIN:
                self._token = await self._request(now)
            return self._token

    async def _request(self, now: dt.datetime) -> AzureBearerToken:
        status, phrase, body = await self._post()
        if status != 200:
            raise self._build_refused(read_body(status, phrase, body))
        try:
            fields = parse_json(body)
            token, seconds = fields["access_token"], fields["expires_in"]
            if not (isinstance(token, str) and re.fullmatch(r"[!-~]+", token)):
                raise TypeError  # noqa: TRY301  as for other answers without a token
            life = dt.timedelta(seconds=min(float(seconds), _LONGEST_LIFE))
        except (ValueError, TypeError, LookupError):
            raise self._build_failure("answered without a token", "Correct AZURE_AUTHORITY_HOST") from None
        return {"token": token, "expires_at": now + life}

    async def _post(self) -> tuple[int, str, str]:
        """Return status, phrase and body of the answer; redirects are not followed."""
        principal, authority = self._principal, self._principal.authority
        form: dict[str, Any] = {
            "grant_type": "client_credentials",
            "client_id": principal.client_id,
            "client_secret": principal.client_secret,
            "scope": _SCOPE,
        }
        url = f"{authority.url}/{principal.tenant}/oauth2/v2.0/token"
        try:
            destinations = Destinations(authority.host)
            destinations.check(authority.host, ())
            connector = aiohttp.TCPConnector(
                resolver=CheckedResolver(destinations), ssl=build_context(self._authorities)
            )
            async with (
                aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT) as session,
                session.post(url, data=form, allow_redirects=False) as answer,
            ):
                body = bytearray()
                async for chunk in answer.content.iter_chunked(_LONGEST):
                    body += chunk
                    if len(body) > _LONGEST:
                        break
                return answer.status, answer.reason or "", body.decode(errors="replace").strip()
        except (aiohttp.ClientError, TimeoutError) as error:
            problem = explain(error, authority.host, authority.port)
            untrusted = "Put the issuer's certificate into ca.crt of the storage Secret"
            remedy = untrusted if problem.is_untrusted else problem.remedy
            cause = f"cannot be reached: {problem.cause}"
            raise self._build_failure(cause, remedy, Reason.UNREACHABLE) from None
        except ValueError as error:  # of the address
            raise self._build_failure(f"is refused: {error}", "Correct AZURE_AUTHORITY_HOST") from None

    def _build_refused(self, answer: Answer) -> Failure:
        words = answer.words
        if 400 <= answer.status < 500 and answer.status not in {404, 408, 429}:
            code = _CODE.search(words)
            remedy = _REMEDIES.get(code[0] if code else "", "")
            return self._build_failure(
                f"refused the service principal ({words})",
                remedy or "Check AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET",
                Reason.ACCESS_DENIED,
            )
        status = answer.status_line
        cause = f"answered {status}" + ("" if words == status else f" ({words})")
        if answer.status == 429 or answer.status >= 500:
            return self._build_failure(cause, "The agent tries again", is_outage=True)
        return self._build_failure(cause, "Correct AZURE_AUTHORITY_HOST")

    def _build_failure(
        self, cause: str, remedy: str, reason: Reason = Reason.FETCH_FAILED, *, is_outage: bool = False
    ) -> Failure:
        message = f"{self._uri}: {self._principal.authority.url}, which issues the tokens, {cause}. {remedy}."
        return Failure(reason, message, is_outage=is_outage)
