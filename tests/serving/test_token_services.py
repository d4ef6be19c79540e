"""Token services that are hostile, busy or of another kind, and tokens that are none: each gets a sentence."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from conch_agent.reasons import Failure, Reason
from conch_agent.sources import token_service
from conch_agent.sources.az_credentials import FederatedIdentity
from conch_agent.sources.az_token import TokenSource
from conch_agent.sources.gs_token import MetadataTokens
from conch_agent.sources.network import NetworkSettings
from conch_agent.sources.s3_pod_identity import PodIdentity, PodIdentitySession
from conch_agent.sources.s3_role import RoleSession, WebIdentity
from conch_agent.sources.secret_settings import Endpoint
from tests.serving.azure import serve
from tests.support.azure import CLIENT, TENANT

ROLE, TOKEN = "arn:aws:iam::1:role/models", "token-of-the-service-account"
NOW = dt.datetime(2026, 11, 30, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


def _build(key: str = "key", session: str = "session", expires: str = "2026-11-30T12:30:00Z", before: str = "") -> str:
    """Return an answer of the form of AWS's token service."""
    return (
        f"{before}<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>"
        f"<AccessKeyId>{key}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>{session}</SessionToken>"
        f"<Expiration>{expires}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>"
        "</AssumeRoleWithWebIdentityResponse>"
    )


async def _request(
    folder: Path, answer: web.Response, text: bytes = TOKEN.encode(), *, is_azure: bool = False
) -> dt.datetime | Failure | None:
    """Return when the credentials of an answer expire, or the failure."""
    file = folder / "token"
    file.write_bytes(text)

    async def handle(_: web.Request) -> web.StreamResponse:
        return answer

    async with serve(handle, None) as url:
        service = Endpoint(url, "127.0.0.1", int(url.rpartition(":")[2]))
        try:
            if is_azure:
                identity = FederatedIdentity(TENANT, CLIENT, file, service)
                return (await TokenSource("az://account/models/m", identity, NetworkSettings()).request(NOW))[
                    "expires_at"
                ]
            role = WebIdentity(ROLE, file, service)
            return (await RoleSession("s3://models/m", role, NetworkSettings()).request(NOW))["expires_at"]
        except Failure as failure:
            return failure


@pytest.mark.parametrize(
    ("expires", "life"),
    [
        ("2026-11-30T12:30:00Z", HOUR / 2),
        ("2026-11-30T12:30:00.123456789Z", HOUR / 2 + dt.timedelta(microseconds=123456)),
        ("2026-11-30T14:30:00+02:00", HOUR / 2),
        ("2026-11-30T12:30:00", HOUR / 2),
        ("2026-11-30T13:30:00Z", HOUR),  # the clock of the node is behind
        ("9999-12-31T23:59:59-12:00", HOUR),
    ],
)
async def test_the_end_of_credentials(expires: str, life: dt.timedelta, tmp_path: Path) -> None:
    assert await _request(tmp_path, web.Response(text=_build(expires=expires))) == NOW + life


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("<html><title>Sign in</title></html>", "answered without credentials. Correct AWS_ENDPOINT_URL_STS."),
        ("", "answered without credentials"),
        ("x" * 10_000_000, "answered without credentials"),
        (_build(session="a&#10;x-header:&#32;b"), "answered without credentials"),
        (_build(key="a&#0;"), "answered without credentials"),
        (_build(key="&e;", before="<!DOCTYPE a [<!ENTITY e SYSTEM 'file:///etc/hosts'>]>"), ""),
        (_build(expires="tomorrow"), "answered without credentials"),
        (_build(expires="2026-11-30T11:59:59Z"), "have expired (2026-11-30T11:59:59Z; the clock of the node has 2026"),
        (_build(expires="0001-01-01T00:00:00+12:00"), "Correct the clock of the node, or of the token service."),
    ],
)
async def test_answers_without_credentials(body: str, words: str, tmp_path: Path) -> None:
    found = await _request(tmp_path, web.Response(text=body))
    if not words:
        assert found == NOW + HOUR / 2, "an entity is a text"
        return
    assert isinstance(found, Failure)
    assert found.reason == Reason.FETCH_FAILED
    assert words in found.message


@pytest.mark.parametrize("text", [b"", b" \n", b"a\nb", b"\xff\xfe", b"a\0", b"x" * 10_000_000])
async def test_a_file_without_a_token(text: bytes, tmp_path: Path) -> None:
    found = await _request(tmp_path, web.Response(text=_build()), text)
    assert isinstance(found, Failure)
    assert found.reason == Reason.ACCESS_DENIED
    assert "the token of AWS_WEB_IDENTITY_TOKEN_FILE cannot be read" in found.message


@pytest.mark.parametrize(
    ("status", "code", "reason", "words"),
    [
        (400, "IDPCommunicationError", Reason.FETCH_FAILED, "HTTP 400 Bad Request (IDPCommunicationError: Words). The"),
        (400, "Throttling", Reason.FETCH_FAILED, "The agent tries again."),
        (429, "", Reason.FETCH_FAILED, "answered HTTP 429 Too Many Requests. The agent tries again."),
        (408, "", Reason.FETCH_FAILED, "answered HTTP 408 Request Timeout. The agent tries again."),
        (500, "", Reason.FETCH_FAILED, "answered HTTP 500 Internal Server Error. The agent tries again."),
        (400, "ExpiredTokenException", Reason.ACCESS_DENIED, "the kubelet renews the token."),
        (400, "InvalidIdentityToken", Reason.ACCESS_DENIED, "has an OIDC provider in IAM"),
        (403, "RegionDisabledException", Reason.ACCESS_DENIED, "Activate the token service of the region"),
        (403, "AccessDenied", Reason.ACCESS_DENIED, "the trust policy of the role names the service account"),
    ],
)
async def test_refusals_of_a_role(status: int, code: str, reason: Reason, words: str, tmp_path: Path) -> None:
    error = f"<ErrorResponse><Error><Code>{code}</Code><Message>Words.</Message></Error></ErrorResponse>"
    found = await _request(tmp_path, web.Response(status=status, text=error if code else ""))
    assert isinstance(found, Failure)
    assert (found.reason, found.is_outage) == (reason, reason == Reason.FETCH_FAILED)
    assert words in found.message


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("AADSTS700016", "the annotation azure.workload.identity/client-id"),
        ("AADSTS700024", "Correct the clock of the node"),
        ("AADSTS90002", "azure.workload.identity/tenant-id"),
        ("AADSTS7000222", "has a federated credential"),
        ("AADSTS53003", "has a federated credential"),
    ],
)
async def test_refusals_of_an_identity_name_no_key_of_the_secret(code: str, words: str, tmp_path: Path) -> None:
    answer = web.json_response({"error": "some", "error_description": f"{code}: Words."}, status=400)
    found = await _request(tmp_path, answer, is_azure=True)
    assert isinstance(found, Failure)
    assert words in found.message
    assert "AZURE_" not in found.message


@pytest.mark.parametrize("is_azure", [True, False])
@pytest.mark.parametrize("length", [40, 2000])
async def test_a_token_is_in_no_message(length: int, tmp_path: Path, *, is_azure: bool) -> None:
    """A server repeats in its answer what it has received."""
    token = f"eyJhbGciOiJSUzI1NiJ9.eyJ{'a' * length}.{'b' * 300}"
    found = await _request(tmp_path, web.Response(status=400, text=f"bad '{token}'"), token.encode(), is_azure=is_azure)
    assert isinstance(found, Failure)
    assert "(bad '...')" in found.message


@pytest.mark.parametrize("seconds", ["-1", "0", "-1e300", "-Infinity", "NaN", "1" + "0" * 400, '"x"', "null", "[]"])
async def test_a_token_of_no_duration(seconds: str, tmp_path: Path) -> None:
    body = f'{{"token_type": "Bearer", "access_token": "a", "expires_in": {seconds}}}'
    found = await _request(tmp_path, web.Response(text=body), is_azure=True)
    assert isinstance(found, Failure)
    assert "answered without a token" in found.message


@pytest.mark.parametrize("seconds", ["60", '"60"', "60.0"])
async def test_the_duration_of_a_token(seconds: str, tmp_path: Path) -> None:
    body = f'{{"token_type": "Bearer", "access_token": "a", "expires_in": {seconds}}}'
    assert await _request(tmp_path, web.Response(text=body), is_azure=True) == NOW + dt.timedelta(minutes=1)


@pytest.mark.parametrize(
    "answer",
    [
        "<html>Welcome</html>",
        "[]",
        "{}",
        '{"AccessKeyId": null, "SecretAccessKey": "s", "Token": "t", "Expiration": "2026-11-30T12:30:00Z"}',
        '{"AccessKeyId": 1, "SecretAccessKey": "s", "Token": "t", "Expiration": "2026-11-30T12:30:00Z"}',
        '{"AccessKeyId": "k", "SecretAccessKey": "s\\nx: y", "Token": "t", "Expiration": "2026-11-30T12:30:00Z"}',
        '{"AccessKeyId": "k", "SecretAccessKey": "s", "Token": "t", "Expiration": "soon"}',
        "[" * 60_000,
    ],
)
async def test_an_agent_of_eks_that_answers_without_credentials(answer: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)

    async def handle(_: web.Request) -> web.StreamResponse:
        return web.Response(text=answer)

    async with serve(handle, None) as url:
        agent = Endpoint(url, "127.0.0.1", int(url.rpartition(":")[2]))
        session = PodIdentitySession("s3://models/m", PodIdentity(agent, "/v1/credentials", tmp_path / "token"))
        with pytest.raises(Failure, match=r"answered without credentials\. Correct AWS_CONTAINER_CREDENTIALS_FULL_URI"):
            await session.request(NOW)


@pytest.mark.parametrize("answer", ["<html></html>", "[]", '{"access_token": "a b", "expires_in": 9}', "[" * 60_000])
async def test_a_metadata_server_that_answers_without_a_token(answer: str) -> None:
    async def handle(_: web.Request) -> web.StreamResponse:
        return web.Response(text=answer)

    async with serve(handle, None) as url:
        tokens = MetadataTokens("gs://models/m", Endpoint(url, "127.0.0.1", int(url.rpartition(":")[2])))
        with pytest.raises(Failure, match=r"answered without a token\. Correct GOOGLE_POD_IDENTITY"):
            await tokens.request(NOW)


async def test_a_metadata_server_that_answers_too_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_service, "_TIMEOUT", aiohttp.ClientTimeout(total=0.2, sock_connect=10))

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.01)

    async with serve(handle, None) as url:
        server = Endpoint(url, "127.0.0.1", int(url.rpartition(":")[2]))
        with pytest.raises(Failure, match=r"127\.0\.0\.1:\d+ did not answer within 0\.2 s") as caught:
            await MetadataTokens("gs://models/m", server).request(NOW)
    assert caught.value.reason == Reason.UNREACHABLE
