"""Tokens of the identity of a pod on GKE, from the metadata server of GKE, which knows the pod's service account.

Without GKE's workload identity, the same address has the identity of the node. So a storage Secret requests it.
The protocol is in https://docs.cloud.google.com/compute/docs/metadata/querying-metadata.
"""

from __future__ import annotations

import datetime as dt
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from conch_agent.sources.gs_settings import POD_IDENTITY
from conch_agent.sources.network import DIRECT
from conch_agent.sources.pod_identity import has_variables, parse_node_url, read_variable
from conch_agent.sources.secret_settings import Endpoint, WrongFormError, format_value
from conch_agent.sources.token_service import RefusedError, TokenService, parse_token_answer

if TYPE_CHECKING:
    from obstore.store import GCSCredential

_HOST: Final = "GCE_METADATA_HOST"  # as in Google's own libraries
_ADDRESSES: Final = frozenset(map(ip_address, ("169.254.169.254", "fd20:ce::254")))
_SERVER: Final = Endpoint("http://169.254.169.254", "169.254.169.254", 80)
_PATH: Final = "/computeMetadata/v1/instance/service-accounts/default/token"
_REMEDY: Final = (
    "Check that the node pool has GKE's metadata server (Workload Identity Federation), and the bindings of"
    " spec.predictor.pod.serviceAccountName in IAM"
)


def find_server() -> Endpoint:
    """Return the metadata server.

    Raises:
        Failure: AccessDenied: the environment names another server.
    """
    if not has_variables(_HOST):
        return _SERVER
    return read_variable(_HOST, _parse_host, f"Remove {_HOST}")


def _parse_host(text: str) -> Endpoint:
    """Return the server of an address, with a port behind a colon unless it is 80."""
    message = f"is {format_value(text)}, which is no address of Google's metadata server, such as {_SERVER.host}"
    try:
        endpoint, path = parse_node_url(f"http://{text}", _ADDRESSES, "Google's metadata server")
    except WrongFormError:
        raise WrongFormError(message) from None
    if path:
        raise WrongFormError(message)
    return endpoint


class MetadataTokens:
    """Requests tokens."""

    def __init__(self, uri: str, server: Endpoint) -> None:
        """Create it.

        Args:
            uri: The storageUri, with which messages begin.
            server: As in `find_server`.
        """
        self._service = TokenService(uri, server, POD_IDENTITY, DIRECT, _ADDRESSES)

    async def request(self, now: dt.datetime) -> GCSCredential:
        """Request a token.

        Args:
            now: The time.

        Raises:
            Failure: AccessDenied where the server refuses, Unreachable, or FetchFailed for other answers.
        """
        try:
            body = await self._service.get(_PATH, {"Metadata-Flavor": "Google"})
        except RefusedError as error:
            whom = "a token to the pod's service account"
            raise self._service.build_refused(error.answer, whom, _REMEDY) from None
        token, expires = parse_token_answer(self._service, body, now)
        return {"token": token, "expires_at": expires}
