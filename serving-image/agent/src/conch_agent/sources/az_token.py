"""Tokens of Microsoft Entra ID: the client credentials flow (OAuth 2.0, RFC 6749, section 4.4).

A service principal shows its secret, and the identity of a pod the token of its service account. The protocol is in
https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Final

from conch_agent.reasons import Failure
from conch_agent.sources.answer import Answer
from conch_agent.sources.az_credentials import FederatedIdentity, ServicePrincipal
from conch_agent.sources.az_settings import IDENTITY
from conch_agent.sources.network import NetworkSettings
from conch_agent.sources.token_service import RefusedError, TokenService, parse_token_answer, read_pod_token
from conch_agent.threads import run_in_thread

if TYPE_CHECKING:
    from obstore.store import AzureBearerToken

_SCOPE: Final = "https://storage.azure.com/.default"
_ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"  # RFC 7523, section 2.2
_TRUST: Final = (
    "Check that the identity has a federated credential for the service account of"
    " spec.predictor.pod.serviceAccountName and the cluster's issuer"
)
_AUTHORITY: Final = "AZURE_AUTHORITY_HOST"
_CODE: Final = re.compile(r"AADSTS\d+")
# Remedies by code: https://learn.microsoft.com/entra/identity-platform/reference-error-codes
_REMEDIES: Final = {
    "AADSTS7000215": "Write the value of a client secret, not its id, as AZURE_CLIENT_SECRET",
    "AADSTS7000222": "The client secret has expired: make another one, and write it as AZURE_CLIENT_SECRET",
    "AADSTS700016": "The tenant has no such application: correct AZURE_CLIENT_ID or AZURE_TENANT_ID",
    "AADSTS90002": "Correct AZURE_TENANT_ID, or AZURE_AUTHORITY_HOST for a tenant of another cloud",
    "AADSTS900023": "Correct AZURE_TENANT_ID, or AZURE_AUTHORITY_HOST for a tenant of another cloud",
}
_POD_REMEDIES: Final = {
    "AADSTS700016": "Correct the annotation azure.workload.identity/client-id or tenant-id of the service account",
    "AADSTS700024": "Correct the clock of the node, or start the pod anew: the kubelet renews the token",
    "AADSTS90002": "Correct the annotation azure.workload.identity/tenant-id of the service account",
    "AADSTS900023": "Correct the annotation azure.workload.identity/tenant-id of the service account",
}


class TokenSource:
    """Requests tokens of one identity."""

    def __init__(self, uri: str, principal: ServicePrincipal | FederatedIdentity, network: NetworkSettings) -> None:
        """Create the source.

        Args:
            uri: The storageUri, with which messages begin.
            principal: The service principal, or the identity of the pod.
            network: As in TokenService.
        """
        self._uri = uri
        self._principal = principal
        self._service = TokenService(uri, principal.authority, _AUTHORITY, network)

    async def request(self, now: dt.datetime) -> AzureBearerToken:
        """Request a token.

        Args:
            now: The time.

        Raises:
            Failure: AccessDenied where the authority refuses the credentials, Unreachable, or FetchFailed for other
                answers.
        """
        principal = self._principal
        form = {"grant_type": "client_credentials", "client_id": principal.client_id, "scope": _SCOPE}
        if isinstance(principal, ServicePrincipal):
            form["client_secret"] = principal.client_secret
        else:
            form["client_assertion_type"] = _ASSERTION
            form["client_assertion"] = await run_in_thread(read_pod_token, self._uri, principal.token, IDENTITY[-1])
        try:
            body = await self._service.post(f"/{principal.tenant}/oauth2/v2.0/token", form)
        except RefusedError as error:
            raise self._build_refused(error.answer) from None
        token, expires = parse_token_answer(self._service, body, now)
        return {"token": token, "expires_at": expires}

    def _build_refused(self, answer: Answer) -> Failure:
        found = _CODE.search(answer.words)
        code = found[0] if found else ""
        if isinstance(self._principal, FederatedIdentity):
            whom = f"the identity {self._principal.client_id} to the pod's service account"
            return self._service.build_refused(answer, whom, _POD_REMEDIES.get(code, _TRUST))
        remedy = _REMEDIES.get(code, "Check AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET")
        return self._service.build_refused(answer, "the service principal", remedy)
