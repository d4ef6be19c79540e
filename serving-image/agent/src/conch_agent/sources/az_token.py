"""Tokens of a service principal: the client credentials flow of Microsoft Entra ID (OAuth 2.0, RFC 6749, section 4.4).

The protocol is in https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from typing import TYPE_CHECKING, Final

from conch_agent.reasons import Failure
from conch_agent.sources.answer import Answer
from conch_agent.sources.az_credentials import ServicePrincipal
from conch_agent.sources.token_service import RefusedError, TokenService
from conch_contract.parsing import parse_json

if TYPE_CHECKING:
    from obstore.store import AzureBearerToken

_SCOPE: Final = "https://storage.azure.com/.default"
_AUTHORITY: Final = "AZURE_AUTHORITY_HOST"
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
        self._principal = principal
        self._service = TokenService(uri, principal.authority, _AUTHORITY, authorities)
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
        principal = self._principal
        form = {
            "grant_type": "client_credentials",
            "client_id": principal.client_id,
            "client_secret": principal.client_secret,
            "scope": _SCOPE,
        }
        try:
            body = await self._service.post(f"/{principal.tenant}/oauth2/v2.0/token", form)
        except RefusedError as error:
            raise self._build_refused(error.answer) from None
        try:
            fields = parse_json(body)
            token, seconds = fields["access_token"], fields["expires_in"]
            if not (isinstance(token, str) and re.fullmatch(r"[!-~]+", token)):
                raise TypeError  # noqa: TRY301  as for other answers without a token
            life = dt.timedelta(seconds=min(float(seconds), _LONGEST_LIFE))
        except (ValueError, TypeError, LookupError):
            raise self._service.build_failure("answered without a token", f"Correct {_AUTHORITY}") from None
        return {"token": token, "expires_at": now + life}

    def _build_refused(self, answer: Answer) -> Failure:
        code = _CODE.search(answer.words)
        remedy = _REMEDIES.get(code[0] if code else "", "")
        remedy = remedy or "Check AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET"
        return self._service.build_refused(answer, "the service principal", remedy)
