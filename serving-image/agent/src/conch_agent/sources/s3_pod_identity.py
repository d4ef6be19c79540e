"""Temporary credentials by EKS Pod Identity: of the role that EKS has associated with the pod's service account.

EKS adds two variables to the pod, the URL of its own agent on the node and the file of a token, which it renews. The
protocol is in https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html. The agent of EKS has
a link-local address, so that requests go to it and to no other one, without a proxy.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final

from conch_agent.sources.network import DIRECT
from conch_agent.sources.pod_identity import has_variables, parse_node_url, read_variable
from conch_agent.sources.s3_role import build_credential
from conch_agent.sources.s3_settings import EKS_AGENT, EKS_TOKEN
from conch_agent.sources.secret_settings import Endpoint
from conch_agent.sources.token_service import RefusedError, TokenService, read_pod_token
from conch_agent.threads import run_in_thread
from conch_contract.parsing import parse_json

if TYPE_CHECKING:
    from obstore.store import S3Credential

EKS_ADDRESSES: Final = frozenset(map(ip_address, ("169.254.170.23", "fd00:ec2::23")))
_WRITE: Final = "Correct the EKS Pod Identity Agent, whose URL EKS adds to pods"
_REMEDY: Final = (
    "Check the EKS Pod Identity association of spec.predictor.pod.serviceAccountName, and that the trust policy of its"
    " role names pods.eks.amazonaws.com"
)


@dataclass(frozen=True)
class PodIdentity:
    """The agent of EKS on the node, and the token that it takes.

    Attributes:
        agent: Its address.
        path: Path and query of the credentials there.
        token: The file with the token.
    """

    agent: Endpoint
    path: str
    token: Path


def find_pod_identity() -> PodIdentity | None:
    """Return the identity that EKS names in the environment; None: it names none.

    Raises:
        Failure: AccessDenied: the URL is not that of EKS's agent.
    """
    if not has_variables(EKS_AGENT, EKS_TOKEN):
        return None
    agent, path = read_variable(EKS_AGENT, _parse_agent, _WRITE)
    return PodIdentity(agent, path, read_variable(EKS_TOKEN, Path, _WRITE))


def _parse_agent(text: str) -> tuple[Endpoint, str]:
    return parse_node_url(text, EKS_ADDRESSES, "EKS's agent")


class PodIdentitySession:
    """Requests the temporary credentials of a pod identity."""

    def __init__(self, uri: str, identity: PodIdentity) -> None:
        """Create the session.

        Args:
            uri: The storageUri, with which messages begin.
            identity: The agent and the token.
        """
        self._uri = uri
        self._identity = identity
        self._service = TokenService(uri, identity.agent, EKS_AGENT, DIRECT, EKS_ADDRESSES)

    async def request(self, now: dt.datetime) -> S3Credential:
        """Request credentials.

        Args:
            now: The time.

        Raises:
            Failure: AccessDenied where the agent refuses the token, or there is none; Unreachable; or FetchFailed for
                other answers.
        """
        token = await run_in_thread(read_pod_token, self._uri, self._identity.token, EKS_TOKEN)
        try:
            body = await self._service.get(self._identity.path, {"Authorization": token})
        except RefusedError as error:
            whom = "credentials to the pod's service account"
            raise self._service.build_refused(error.answer, whom, _REMEDY) from None
        return build_credential(self._service, now, lambda: _parse_fields(body))


def _parse_fields(body: str) -> list[str]:
    """Return key, secret key, token and expiry of an answer."""
    fields = parse_json(body)
    values = [fields[name] for name in ("AccessKeyId", "SecretAccessKey", "Token", "Expiration")]
    if not all(isinstance(value, str) for value in values):
        raise TypeError("a value is no text")
    return values
