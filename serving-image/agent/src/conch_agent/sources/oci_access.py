"""The authorization of requests to a repository: anonymous, basic, or by a token of the service that a registry names.

The service is that of the registry's challenge (CNCF distribution, "Token Authentication Specification"). Its tokens
are for `actions` in the one repository (by default reads), whatever the registry requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from yarl import URL

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.answer import describe_invalid
from conch_agent.sources.http_answers import read_text, read_whole
from conch_agent.sources.http_client import HttpClient
from conch_agent.sources.oci_challenge import Challenge
from conch_agent.sources.oci_errors import build_denial, read_oci_error
from conch_agent.sources.oci_settings import OciSettings, describe_login, find_login
from conch_agent.sources.oci_uri import Artifact
from conch_agent.sources.retry_after import LONGEST_DELAY, read_delay

_SECONDS: Final = 60
_LONGEST_ANSWER: Final = 128 * 1024  # bytes
_LONGEST_TOKEN: Final = 64 * 1024
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})

_Token = Annotated[str, Field(pattern=r"^[!-~]*$", max_length=_LONGEST_TOKEN)]


class _TokenAnswer(BaseModel):
    """The answer of a token service; `access_token` is the name of OAuth 2.0."""

    token: _Token = ""
    access_token: _Token = ""


_TOKEN_ANSWER: Final = TypeAdapter(_TokenAnswer)


class Access:
    """The authorization of requests to one repository.

    Attributes:
        headers: Headers for the registry's own server alone.
    """

    def __init__(
        self, uri: str, artifact: Artifact, settings: OciSettings, client: HttpClient, actions: str = "pull"
    ) -> None:
        self.headers = _NO_HEADERS
        self._actions = actions
        self._uri = uri
        self._artifact = artifact
        self._schemes = {"https", "http"} if settings.plain_http else {"https"}
        self._client = client
        self._login = find_login(settings.logins, artifact)
        self.remedy = describe_login(self._login, settings, artifact)

    async def renew(self, challenges: Iterable[Challenge]) -> bool:
        """Set the headers that a registry requires; return False if there are none for its challenges.

        Args:
            challenges: The challenges of its answer.

        Raises:
            Failure: AccessDenied, FetchFailed or Unreachable for its token service.
        """
        by_scheme = {challenge.scheme: challenge for challenge in challenges}
        if "bearer" in by_scheme:
            token = await self._fetch_token(by_scheme["bearer"])
            self.headers = {"Authorization": f"Bearer {token}"}
            return True
        if "basic" in by_scheme and self._login:
            self.headers = self._login.header
            return True
        return False

    async def _fetch_token(self, challenge: Challenge) -> str:
        realm = self._check_realm(challenge.parameters.get("realm", ""))
        query = {"scope": f"repository:{self._artifact.name}:{self._actions}"}
        if "service" in challenge.parameters:
            query["service"] = challenge.parameters["service"]
        credentials = self._login.header if self._login else _NO_HEADERS
        try:
            async with (
                asyncio.timeout(_SECONDS),
                self._client.get(str(realm.update_query(query)), {}, credentials) as answer,
            ):
                if answer.status != 200:
                    error = read_oci_error(answer.status, answer.reason or "", await read_text(answer))
                    if answer.status in {401, 403}:
                        raise build_denial(self._uri, f"the token service {realm.host}", error, self.remedy)
                    delay = min(read_delay(answer.headers), LONGEST_DELAY)
                    raise self._build_failure(realm, f"answered {error.words}", delay, is_outage=error.is_outage)
                body = await read_whole(answer, _LONGEST_ANSWER)
        except TimeoutError:
            raise self._build_failure(realm, f"did not complete its answer in {_SECONDS} s", is_outage=True) from None
        if body is None:
            raise self._build_failure(realm, f"answered more than {_LONGEST_ANSWER} bytes")
        try:
            found = _TOKEN_ANSWER.validate_json(body)
        except ValidationError as error:
            raise self._build_failure(realm, f"answered no token ({describe_invalid(body, error)})") from None
        if not (token := found.token or found.access_token):
            raise self._build_failure(realm, "answered no token")
        return token

    def _check_realm(self, realm: str) -> URL:
        """Return the URL of the token service, to which the login is sent."""
        try:
            url = URL(realm)
            if url.scheme in self._schemes and url.host and url.user is None:
                return url
        except ValueError:
            pass
        message = (
            f"{self._uri}: the registry {self._artifact.host} names {realm[:200]!r} as its token service, which is no"
            " https:// URL without a user. Correct storageUri, or that registry."
        )
        raise Failure(Reason.FETCH_FAILED, message)

    def _build_failure(self, realm: URL, problem: str, delay: float = 0.0, *, is_outage: bool = False) -> Failure:
        message = (
            f"{self._uri}: the token service {realm.host} of the registry {self._artifact.host} {problem}. The agent"
            " retries; if this stays, read the log of that service."
        )
        return Failure(Reason.FETCH_FAILED, message, delay, is_outage=is_outage)
