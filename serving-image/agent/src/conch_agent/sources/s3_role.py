"""Credentials of a pod's service account for S3: a role is assumed with the account's token.

EKS names role and token in the environment of the containers of a pod whose service account has the annotation
`eks.amazonaws.com/role-arn`; the token is a file that the kubelet renews. The request is AssumeRoleWithWebIdentity of
AWS's token service, which other stores have too:
https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import html
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from conch_agent.reasons import Failure, Reason
from conch_agent.record import read_text
from conch_agent.sources.s3_settings import ROLE, TOKEN_FILE
from conch_agent.sources.secret_settings import Endpoint
from conch_agent.sources.token_service import RefusedError, TokenService
from conch_agent.threads import run_in_thread

if TYPE_CHECKING:
    from obstore.store import S3Credential

SERVICE: Final = "AWS_ENDPOINT_URL_STS"  # a key of the storage Secret
_SESSION: Final = "conch"
_MARGIN: Final = dt.timedelta(minutes=6)  # the client requests others five minutes before some expire
_LONGEST_LIFE: Final = dt.timedelta(hours=12)  # of a role's session
_LONGEST: Final = 64 * 1024  # bytes of a token
_FIELD: Final = r"<{name}>\s*([^<>\s]+)\s*</{name}>"
_REMEDY: Final = (
    "Check that the trust policy of the role names the service account of spec.predictor.pod.serviceAccountName and the"
    " cluster's issuer"
)


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
    """
    role, token = os.environ.get(ROLE, ""), os.environ.get(TOKEN_FILE, "")
    return WebIdentity(role, Path(token), service) if role and token else None


class RoleSession:
    """Returns the temporary credentials of a role, and requests others before they expire."""

    def __init__(self, uri: str, identity: WebIdentity, authorities: str | None) -> None:
        """Create the session.

        Args:
            uri: The storageUri, with which messages begin.
            identity: The role and the token.
            authorities: PEM certificates to trust for the token service beside those of the image.
        """
        self._identity = identity
        self._service = TokenService(uri, identity.service, SERVICE, authorities)
        self._lock = asyncio.Lock()
        self._credential: S3Credential | None = None
        self._uri = uri

    @property
    def role(self) -> str:
        """The role's ARN."""
        return self._identity.role

    async def read(self) -> S3Credential:
        """Return credentials that are valid for at least `_MARGIN`.

        Raises:
            Failure: AccessDenied where the token service refuses the token, or there is none; Unreachable; or
                FetchFailed for other answers.
        """
        async with self._lock:
            now = dt.datetime.now(dt.UTC)
            if self._credential is None or (self._credential["expires_at"] or now) < now + _MARGIN:
                self._credential = await self._request(now)
            return self._credential

    async def _request(self, now: dt.datetime) -> S3Credential:
        role = self._identity.role
        try:
            token = (await run_in_thread(read_text, self._identity.token.resolve(), _LONGEST)).strip()
        except (OSError, ValueError) as error:
            message = f"{self._uri}: the token of {TOKEN_FILE} cannot be read: {error}. Start the pod anew."
            raise Failure(Reason.ACCESS_DENIED, message) from None
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
            whom = f"the role {role} to the pod's service account"
            raise self._service.build_refused(error.answer, whom, _REMEDY) from None
        return self._parse(body, now)

    def _parse(self, body: str, now: dt.datetime) -> S3Credential:
        """Return the credentials of an answer."""
        try:
            key, secret, token, expires = (
                html.unescape(re.findall(_FIELD.format(name=name), body)[0])
                for name in ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")
            )
            expires_at = min(dt.datetime.fromisoformat(expires).astimezone(dt.UTC), now + _LONGEST_LIFE)
        except (ValueError, LookupError):
            raise self._service.build_failure("answered without credentials", f"Correct {SERVICE}") from None
        return {"access_key_id": key, "secret_access_key": secret, "token": token, "expires_at": expires_at}
