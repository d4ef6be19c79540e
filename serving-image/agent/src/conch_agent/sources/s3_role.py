"""Credentials of a pod's service account for S3: a role is assumed with the account's token.

EKS names role and token in the environment of the containers of a pod whose service account has the annotation
`eks.amazonaws.com/role-arn`; the token is a file that the kubelet renews. The request is AssumeRoleWithWebIdentity of
AWS's token service, which other stores have too:
https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html.
"""

from __future__ import annotations

import datetime as dt
import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from conch_agent.reasons import Failure
from conch_agent.sources.answer import Answer
from conch_agent.sources.network import NetworkSettings
from conch_agent.sources.pod_identity import has_variables, read_variable
from conch_agent.sources.s3_settings import ROLE, TOKEN_FILE
from conch_agent.sources.secret_settings import Endpoint, WrongFormError, format_value, parse_token
from conch_agent.sources.token_service import RefusedError, TokenService, read_pod_token
from conch_agent.threads import run_in_thread

if TYPE_CHECKING:
    from obstore.store import S3Credential

SERVICE: Final = "AWS_ENDPOINT_URL_STS"  # a key of the storage Secret
_SESSION: Final = "conch"
# Of a session whose request names no duration. It ends so also by the clock of a node that is behind.
_LONGEST_LIFE: Final = dt.timedelta(hours=1)
_FIELD: Final = r"<{name}>\s*([^<>\s]+)\s*</{name}>"
_REMEDY: Final = (
    "Check that the trust policy of the role names the service account of spec.predictor.pod.serviceAccountName and the"
    " cluster's issuer"
)
# Codes of refusals that end by themselves, and remedies by code, of the API's page.
_BUSY: Final = frozenset({"IDPCommunicationError", "Throttling", "ThrottlingException", "RequestLimitExceeded"})
_REMEDIES: Final = {
    "ExpiredTokenException": "Correct the clock of the node, or start the pod anew: the kubelet renews the token",
    "InvalidIdentityToken": (
        "Check that the account of the role has an OIDC provider in IAM, with the cluster's issuer and the audience of"
        " the token"
    ),
    "RegionDisabledException": f"Activate the token service of the region in IAM, or set {SERVICE} to another region's",
}


@dataclass(frozen=True)
class WebIdentity:
    """The role of a pod's service account.

    Attributes:
        role: The role's ARN.
        token: The file with the service account's token, which is renewed.
        service: The token service.
    """

    role: str
    token: Path
    service: Endpoint


def find_web_identity(service: Endpoint) -> WebIdentity | None:
    """Return the role that the environment of the container names; None: it names none.

    Args:
        service: The token service.

    Raises:
        Failure: AccessDenied: its name is no ARN.
    """
    if not has_variables(ROLE, TOKEN_FILE):
        return None
    role = read_variable(ROLE, _parse_role, "Correct the annotation eks.amazonaws.com/role-arn of its service account")
    token = read_variable(TOKEN_FILE, Path, "Correct it")
    return WebIdentity(role, token, service)


def _parse_role(text: str) -> str:
    """Return the ARN of a role, whose parts differ between stores."""
    if not re.fullmatch(r"arn:[!-~]{1,2044}", text):
        message = f"is {format_value(text)}, which is no ARN of a role"
        raise WrongFormError(message)
    return text


class RoleSession:
    """Requests the temporary credentials of a role."""

    def __init__(self, uri: str, identity: WebIdentity, network: NetworkSettings) -> None:
        """Create the session.

        Args:
            uri: The storageUri, with which messages begin.
            identity: The role and the token.
            network: As in TokenService.
        """
        self._identity = identity
        self._service = TokenService(uri, identity.service, SERVICE, network)
        self._uri = uri

    async def request(self, now: dt.datetime) -> S3Credential:
        """Request credentials.

        Args:
            now: The time.

        Raises:
            Failure: AccessDenied where the token service refuses the token, or there is none; Unreachable; or
                FetchFailed for other answers.
        """
        role = self._identity.role
        token = await run_in_thread(read_pod_token, self._uri, self._identity.token, TOKEN_FILE)
        form = {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": role,
            "RoleSessionName": _SESSION,
            "WebIdentityToken": token,
        }
        try:
            body = await self._service.post("/", form)
        except RefusedError as error:
            raise self._build_refused(error.answer) from None
        return build_credential(self._service, now, lambda: _parse_fields(body))

    def _build_refused(self, answer: Answer) -> Failure:
        if answer.code in _BUSY:
            cause = f"answered {answer.status_line} ({answer.words})"
            return self._service.build_failure(cause, "The agent tries again", is_outage=True)
        whom = f"the role {self._identity.role} to the pod's service account"
        return self._service.build_refused(answer, whom, _REMEDIES.get(answer.code, _REMEDY))


def _parse_fields(body: str) -> list[str]:
    """Return key, secret key, token and expiry of an answer."""
    names = ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")
    return [html.unescape(re.findall(_FIELD.format(name=name), body)[0]) for name in names]


def build_credential(service: TokenService, now: dt.datetime, parse: Callable[[], list[str]]) -> S3Credential:
    """Return the credentials of an answer.

    Args:
        service: The server that has answered.
        now: The time.
        parse: Returns key, secret key, token and expiry of the answer, or raises ValueError, TypeError or LookupError.

    Raises:
        Failure: FetchFailed: it has none, or such as have expired.
    """
    try:
        key, secret, token, expires = map(parse_token, parse())
        expires_at = dt.datetime.fromisoformat(expires)
    except (ValueError, TypeError, LookupError):
        raise service.build_failure("answered without credentials", f"Correct {service.setting}") from None
    expires_at = min(expires_at.replace(tzinfo=expires_at.tzinfo or dt.UTC), now + _LONGEST_LIFE)
    if expires_at <= now:
        cause = f"answered with credentials that have expired ({expires}; the clock of the node has {now:%FT%TZ})"
        raise service.build_failure(cause, "Correct the clock of the node, or of the token service")
    return {"access_key_id": key, "secret_access_key": secret, "token": token, "expires_at": expires_at}
