"""Azure Blob Storage that fails, redirects, or needs a token: each answer becomes a sentence with a remedy."""

from __future__ import annotations

import html
import json
import ssl
from pathlib import Path
from urllib.parse import quote

import pytest
from aiohttp import web

from conch_agent.fetch import Fetch
from conch_agent.reasons import Failure, Reason
from conch_agent.sources.az import AzSource
from conch_agent.sources.az_settings import IDENTITY
from conch_agent.sources.base import Source
from tests.serving.azure import POD_TOKEN, Authority, Azurite, serve
from tests.serving.certificates import issued
from tests.support.azure import ACCOUNT, CLIENT, CLIENT_SECRET, KEY, TENANT, make_container_sas

ERROR = "\ufeff<?xml version='1.0' encoding='utf-8'?><Error><Code>{code}</Code><Message>Words.</Message>{more}</Error>"
EXPIRED = "Signature not valid in the specified time frame: Start [a] - Expiry [b] - Current [c]"
SIGNED = "Signature did not match. String to sign used was rl 2026 /blob/account/models"
MAC = "The MAC signature found in the HTTP request 'c2ln' is not the same. Server used following string to sign: 'GET"
SAS = {"AZURE_STORAGE_SAS_TOKEN": make_container_sas("models")}
LIST = (
    "<?xml version='1.0'?><EnumerationResults><Blobs><Blob><Name>m/model.onnx</Name><Properties><Last-Modified>Mon, 30"
    " Nov 2026 01:00:00 GMT</Last-Modified><Etag>0x1</Etag><Content-Length>5</Content-Length><Content-Type>x"
    "</Content-Type></Properties></Blob></Blobs><NextMarker/></EnumerationResults>"
)


async def _failure(source: Source) -> Failure:
    with pytest.raises(Failure) as raised:
        await source.list_files()
    return raised.value


def _public(url: str) -> dict[str, str]:
    return {"AZURE_STORAGE_ENDPOINT": url, "AZURE_ALLOW_HTTP": "true"}


@pytest.mark.parametrize(
    ("answer", "secret", "reason", "words"),
    [
        ((404, "ContainerNotFound", ""), {}, Reason.BUCKET_NOT_FOUND, "the container 'models' does not exist"),
        ((404, "ResourceNotFound", ""), {}, Reason.ACCESS_DENIED, "set AZURE_STORAGE_SAS_TOKEN"),
        ((404, "ResourceNotFound", ""), SAS, Reason.FETCH_FAILED, "Correct the account in storageUri"),
        ((401, "NoAuthenticationInformation", ""), {}, Reason.ACCESS_DENIED, "or make 'models' public"),
        ((409, "PublicAccessNotPermitted", ""), {}, Reason.ACCESS_DENIED, "set AZURE_STORAGE_SAS_TOKEN"),
        ((403, "AuthenticationFailed", EXPIRED), SAS, Reason.ACCESS_DENIED, "Expiry [b] - Current [c])"),
        (
            (403, "AuthenticationFailed", SIGNED),
            SAS,
            Reason.ACCESS_DENIED,
            "(AuthenticationFailed: Words). Check AZURE_",
        ),
        ((403, "AuthenticationFailed", MAC), {}, Reason.ACCESS_DENIED, "(AuthenticationFailed: Words). No cred"),
        (
            *((403, "AuthenticationFailed", "Request date header too old: 'Mon'"), {"AZURE_STORAGE_ACCOUNT_KEY": KEY}),
            *(
                Reason.ACCESS_DENIED,
                "too old: 'Mon'). Check AZURE_STORAGE_ACCOUNT_KEY in the storage Secret, and that the",
            ),
        ),
        (
            (403, "AuthorizationPermissionMismatch", ""),
            SAS,
            Reason.ACCESS_DENIED,
            "permits reading and listing of 'models'",
        ),
        ((403, "AuthorizationFailure", ""), {"AZURE_STORAGE_ACCOUNT_KEY": KEY}, Reason.ACCESS_DENIED, "network rules"),
        ((403, "AuthorizationProtocolMismatch", ""), SAS, Reason.ACCESS_DENIED, "SAS token is for https alone"),
        ((403, "KeyBasedAuthenticationNotPermitted", ""), SAS, Reason.ACCESS_DENIED, "write a service principal"),
        ((409, "ContainerBeingDeleted", ""), {}, Reason.FETCH_FAILED, "create it again"),
        ((409, "BlobArchived", ""), {}, Reason.FETCH_FAILED, "the tier Hot, Cool or Cold"),
        ((503, "ServerBusy", ""), {}, Reason.FETCH_FAILED, "overloaded or limits requests; the agent tries again"),
        ((429, "", ""), {}, Reason.FETCH_FAILED, "overloaded or limits requests; the agent tries again"),
        ((500, "InternalError", ""), {}, Reason.FETCH_FAILED, "has a fault; the agent tries again"),
        ((502, "", ""), {}, Reason.FETCH_FAILED, "has a fault; the agent tries again"),
        ((400, "InvalidResourceName", ""), {}, Reason.FETCH_FAILED, "Correct the container and the path"),
        ((418, "html", ""), {}, Reason.FETCH_FAILED, "Does AZURE_STORAGE_ENDPOINT name"),
        ((200, "html", ""), {}, Reason.FETCH_FAILED, "Does AZURE_STORAGE_ENDPOINT name"),
    ],
)
async def test_errors_as_azure_documents_them(
    answer: tuple[int, str, str], secret: dict[str, str], reason: Reason, words: str
) -> None:
    status, code, details = answer
    more = f"<AuthenticationErrorDetail>{details}</AuthenticationErrorDetail>" if details else ""
    body = {"html": "<html><head><title>A page</title></head></html>", "": ""}.get(
        code, ERROR.format(code=code, more=more)
    )

    async def respond(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body, content_type="text/html" if code == "html" else "application/xml")

    async with serve(respond, None) as url:
        failure = await _failure(AzSource("az://account/models/m", _public(url) | secret))
    assert failure.reason == reason
    assert failure.message.startswith("az://account/models/m: ")
    assert words in failure.message, failure.message
    for part in ("<", "sig=", "to sign", "c2ln", "sign used"):
        assert part not in failure.message


@pytest.mark.parametrize(
    "page",
    [
        "<html><title>No access to {url}</title></html>",
        "<html>The URL <i>{url}</i> was not found</html>",
        "<Error><Code>Refused</Code><Message>{url} is refused</Message></Error>",
        '{{"message": "{url} is refused"}}',
        "{quoted}",
    ],
)
async def test_a_proxy_that_repeats_the_address(page: str) -> None:
    async def respond(request: web.Request) -> web.Response:
        text = page.format(url=html.escape(str(request.url)), quoted=quote(str(request.url), safe=""))
        return web.Response(status=403, text=text, content_type="text/html")

    async with serve(respond, None) as url:
        failure = await _failure(AzSource("az://account/models/m", _public(url) | SAS))
    assert failure.reason == Reason.ACCESS_DENIED
    for part in ("sig", "rl", "2023-11-03"):
        assert part not in failure.message.partition("Check")[0]


@pytest.mark.parametrize("url", ["http://169.254.169.254", "http://168.63.129.16", "http://[::ffff:169.254.169.254]"])
async def test_a_metadata_server_is_no_endpoint(url: str) -> None:
    failure = await _failure(AzSource("az://account/models/m", _public(url)))
    assert "AZURE_STORAGE_ENDPOINT is" in failure.message
    assert "which Conch never contacts" in failure.message


async def test_a_store_that_is_not_there() -> None:
    failure = await _failure(AzSource("az://account/models/m", SAS | {"AZURE_STORAGE_ENDPOINT": "https://127.0.0.1:1"}))
    assert failure.reason == Reason.UNREACHABLE
    assert "nothing listens at 127.0.0.1:1" in failure.message
    assert "sig=" not in failure.message


async def test_an_account_that_is_not_there() -> None:
    """The name of a container may be in its place, as other tools write it."""
    failure = await _failure(AzSource("az://conchnosuchaccount/magika/1", {}))
    assert failure.reason == Reason.UNREACHABLE
    assert "the host name 'conchnosuchaccount.blob.core.windows.net' cannot be resolved" in failure.message
    assert "Correct the account in storageUri, which is az://account/container/prefix, or the DNS" in failure.message


def _contexts(folder: Path) -> tuple[list[ssl.SSLContext], str]:
    """Return server contexts of 127.0.0.1 and localhost, and their authorities."""
    contexts, authorities = [], ""
    for host in ("127.0.0.1", "localhost"):
        certificate, key, authority = issued(folder / host, host=host)
        contexts.append(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))
        contexts[-1].load_cert_chain(certificate, key)
        authorities += authority.read_text()
    return contexts, authorities


@pytest.mark.parametrize("secret", [SAS, {"AZURE_STORAGE_ACCOUNT_KEY": KEY}], ids=["SAS", "key"])
@pytest.mark.parametrize("has_tls", [False, True])
async def test_another_host_gets_no_credentials_of_azure(
    tmp_path: Path, secret: dict[str, str], *, has_tls: bool
) -> None:
    requests: list[web.Request] = []
    (own, others), authorities = _contexts(tmp_path) if has_tls else ((None, None), "")

    async def redirect(request: web.Request) -> web.Response:
        assert "sig" in request.query or "Authorization" in request.headers
        raise web.HTTPTemporaryRedirect(f"{elsewhere.replace('127.0.0.1', 'localhost')}{request.path}")

    async def answer(request: web.Request) -> web.Response:
        requests.append(request)
        return web.Response(text=LIST, content_type="application/xml")

    async with serve(answer, others) as elsewhere, serve(redirect, own) as url:
        source = AzSource("az://account/models/m", _public(url) | secret | ({"ca.crt": authorities} if has_tls else {}))
        assert (await source.list_files()).items
        assert "Authorization" not in requests[0].headers
        assert "sig" not in requests[0].headers.get("Referer", "")


async def test_the_environment_sets_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither an identity of the node nor settings of the client in the environment are used."""
    requests: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        requests.append(request)
        return web.Response(text=LIST, content_type="application/xml")

    async with serve(answer, None) as url, serve(answer, None) as elsewhere:
        for name in ("IDENTITY_ENDPOINT", "AZURE_MSI_ENDPOINT", "AZURE_STORAGE_ENDPOINT", "AZURITE_BLOB_STORAGE_URL"):
            monkeypatch.setenv(name, elsewhere)
        for name in ("AZURE_STORAGE_USE_EMULATOR", "AZURE_USE_AZURE_CLI", "AZURE_USE_FABRIC_ENDPOINT"):
            monkeypatch.setenv(name, "true")
        for name, value in (Authority().secret | SAS | {"AZURE_STORAGE_ACCOUNT_KEY": KEY}).items():
            monkeypatch.setenv(name, value or elsewhere)
        for secret in ({}, SAS, {"AZURE_STORAGE_ACCOUNT_KEY": KEY}):
            requests.clear()
            assert (await AzSource("az://account/models/m", _public(url) | secret).list_files()).items
            (request,) = requests
            assert str(request.url.origin()) == url
            assert ("sig" in request.query) == (secret is SAS)
            assert ("Authorization" in request.headers) == ("AZURE_STORAGE_ACCOUNT_KEY" in secret)


async def test_a_service_principal(tmp_path: Path) -> None:
    certificate = issued(tmp_path / "tls")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate[0], certificate[1])
    azurite = Azurite(tmp_path, certificate)
    try:
        azurite.make_container("models")
        azurite.put("models", {f"m/{name}": b"x" for name in ("a", "b", "c")})
        async with Authority().run(context) as authority:
            secret = azurite.public | authority.secret | {"ca.crt": certificate[2].read_text()}
            source = AzSource(f"az://{ACCOUNT}/models/m", secret)
            fetched = await Fetch(source, tmp_path / "files").run(await source.list_files())
            assert sorted(file.name for file in fetched.files.iterdir()) == ["a", "b", "c"]
            assert authority.requests == 1
            for _ in range(2):
                assert (await AzSource(f"az://{ACCOUNT}/models/m", secret).list_files()).items
            assert authority.requests == 1, "the sources of an identity share its tokens"
    finally:
        azurite.process.kill()


async def test_the_identity_of_a_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, token = issued(tmp_path / "tls"), tmp_path / "token"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate[0], certificate[1])
    token.write_text(POD_TOKEN)
    for name, value in zip(IDENTITY, (TENANT, CLIENT, str(token)), strict=True):
        monkeypatch.setenv(name, value)
    azurite = Azurite(tmp_path, certificate)
    try:
        azurite.make_container("models")
        azurite.put("models", {"m/a": b"x"})
        async with Authority().run(context) as authority:
            addresses = {"AZURE_AUTHORITY_HOST": authority.url, "ca.crt": certificate[2].read_text()}
            token.write_text("another")
            failure = await _failure(AzSource(f"az://{ACCOUNT}/models/m", azurite.public | addresses))
            assert failure.reason == Reason.ACCESS_DENIED
            assert f"refused the identity {CLIENT} to the pod's service account (AADSTS700213" in failure.message
            assert "federated credential for the service account of spec.predictor.pod" in failure.message
            token.unlink()
            failure = await _failure(AzSource(f"az://{ACCOUNT}/models/m", azurite.public | addresses))
            assert "the token of AZURE_FEDERATED_TOKEN_FILE cannot be read" in failure.message
            token.write_text(POD_TOKEN)
            source = AzSource(f"az://{ACCOUNT}/models/m", azurite.public | addresses)
            assert [str(item.path) for item in (await source.list_files()).items] == ["a"]
            assert authority.requests == 2

            del addresses["AZURE_AUTHORITY_HOST"]
            for secret in (
                addresses,
                addresses | {"AZURE_AUTHORITY_HOST": authority.url, "AZURE_SKIP_SIGNATURE": "true"},
            ):
                failure = await _failure(AzSource(f"az://{ACCOUNT}/models/m", azurite.public | secret))
                assert "No credentials were sent" in failure.message, "no token goes to another store"
                is_plain = secret is addresses
                remedy = (
                    "AZURE_AUTHORITY_HOST for the identity of the pod" if is_plain else "AZURE_SKIP_SIGNATURE to false"
                )
                assert f"set {remedy}" in failure.message
            assert authority.requests == 2
    finally:
        azurite.process.kill()


@pytest.mark.parametrize(
    ("answer", "reason", "words"),
    [
        (
            (401, "AADSTS7000222: The provided client secret keys are expired."),
            Reason.ACCESS_DENIED,
            "make another one",
        ),
        ((400, "AADSTS700016: Application was not found."), Reason.ACCESS_DENIED, "correct AZURE_CLIENT_ID"),
        ((400, "AADSTS90002: Tenant 'x' not found."), Reason.ACCESS_DENIED, "Correct AZURE_TENANT_ID"),
        ((400, "AADSTS53003: Blocked."), Reason.ACCESS_DENIED, "Check AZURE_TENANT_ID, AZURE_CLIENT_ID and"),
        ((429, "Throttled."), Reason.FETCH_FAILED, "HTTP 429 Too Many Requests (Throttled). The agent tries again."),
        ((503, ""), Reason.FETCH_FAILED, "answered HTTP 503 Service Unavailable. The agent tries again."),
        ((404, ""), Reason.FETCH_FAILED, "answered HTTP 404 Not Found. Correct AZURE_AUTHORITY_HOST."),
        ((307, ""), Reason.FETCH_FAILED, "Correct AZURE_AUTHORITY_HOST."),
        ((200, ""), Reason.FETCH_FAILED, "answered without a token. Correct AZURE_AUTHORITY_HOST."),
    ],
)
async def test_tokens_that_are_refused(tmp_path: Path, answer: tuple[int, str], reason: Reason, words: str) -> None:
    (context, _), authorities = _contexts(tmp_path)
    status, text = answer
    body = json.dumps({"error": "some", "error_description": text}) if text else ""
    async with Authority().run(context) as authority:
        headers = {"Location": f"{authority.url}/{TENANT}/oauth2/v2.0/token"} if status == 307 else {}
        authority.answers = [web.Response(text=body, status=status, headers=headers)]
        secret = _public("http://127.0.0.1:1") | authority.secret | {"ca.crt": authorities}
        failure = await _failure(AzSource("az://account/models/m", secret))
        assert authority.requests == 1
    assert failure.reason == reason
    assert failure.message.startswith(f"az://account/models/m: {authority.url}, which issues the tokens, ")
    assert words in failure.message
    assert CLIENT_SECRET not in failure.message


async def test_a_wrong_client_secret(tmp_path: Path) -> None:
    (context, _), authorities = _contexts(tmp_path)
    async with Authority().run(context) as authority:
        secret = authority.secret | {"ca.crt": authorities, "AZURE_CLIENT_SECRET": "another"}
        failure = await _failure(AzSource("az://account/models/m", secret))
    assert failure.reason == Reason.ACCESS_DENIED
    assert f"AADSTS7000215: Invalid client secret provided. It is a secret of the app '{CLIENT}'" in failure.message
    assert "Write the value of a client secret, not its id, as AZURE_CLIENT_SECRET." in failure.message


@pytest.mark.parametrize(
    ("host", "reason", "words"),
    [
        ("https://127.0.0.1:1", Reason.UNREACHABLE, "nothing listens at 127.0.0.1:1"),
        ("https://169.254.169.254", Reason.FETCH_FAILED, "which Conch never contacts. Correct AZURE_AUTHORITY_HOST"),
        ("https://[::ffff:a9fe:a9fe]", Reason.FETCH_FAILED, "which Conch never contacts"),
    ],
)
async def test_an_authority_that_is_not_contacted(host: str, reason: Reason, words: str) -> None:
    secret = Authority().secret | {"AZURE_AUTHORITY_HOST": host}
    failure = await _failure(AzSource("az://account/models/m", secret))
    assert failure.reason == reason
    assert words in failure.message


async def test_an_authority_with_an_unknown_certificate(tmp_path: Path) -> None:
    (context, _), _ = _contexts(tmp_path)
    async with Authority().run(context) as authority:
        failure = await _failure(AzSource("az://account/models/m", authority.secret))
        assert authority.requests == 0
    assert failure.reason == Reason.UNREACHABLE
    assert "Put the issuer's certificate into ca.crt of the storage Secret" in failure.message
