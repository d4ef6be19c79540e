"""What goes wrong between the agent and a store, in the store's own words and with what to do."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from conch_agent.fetch import Fetch
from conch_agent.reasons import Failure, Reason
from conch_agent.sources.base import Source
from conch_agent.sources.https import HttpsSource
from conch_agent.sources.s3 import S3Source
from tests.serving import certificates
from tests.serving.store import Store

SECRET = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key", "AWS_ALLOW_HTTP": "true"}
HEADER = '<?xml version="1.0" encoding="UTF-8"?>\n'
OPENSSL = {
    "as the manual has it": ("-subj", "/CN=localhost"),
    "with a name": ("-subj", "/CN=store", "-addext", "subjectAltName=DNS:localhost"),
    "with key usage": ("-subj", "/CN=localhost", "-addext", "keyUsage=digitalSignature"),
    "no authority": ("-subj", "/CN=localhost", "-addext", "basicConstraints=critical,CA:FALSE"),
}


@asynccontextmanager
async def _server(
    status: int, body: str, kind: str = "application/xml", tls: tuple[Path, Path] | None = None
) -> AsyncGenerator[str, None]:
    """Answer everything alike; yield the server's URL."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body, content_type=kind)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if tls else None
    if context and tls:
        context.load_cert_chain(*tls)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def _failure(source: Source) -> Failure:
    with pytest.raises(Failure) as raised:
        await source.list_files()
    return raised.value


@pytest.mark.parametrize(
    ("status", "kind", "body", "reason", "parts"),
    [
        (
            403,
            "application/xml",
            (
                f"{HEADER}<Error><Code>RequestTimeTooSkewed</Code><Message>The difference is too large.</Message>"
                "<RequestTime>20261126T130000Z</RequestTime><ServerTime>2026-11-26T14:00:00Z</ServerTime></Error>"
            ),
            Reason.FETCH_FAILED,
            ("RequestTimeTooSkewed: The difference is too large", "ServerTime 2026-11-26T14:00:00Z", "clock"),
        ),
        (
            403,
            "application/xml",
            (
                f"{HEADER}<Error><Code>InvalidAccessKeyId</Code><Message>No such id.</Message>"
                "<AWSAccessKeyId>AKIA1</AWSAccessKeyId></Error>"
            ),
            Reason.ACCESS_DENIED,
            ("InvalidAccessKeyId: No such id", "AWSAccessKeyId AKIA1", "AWS_ACCESS_KEY_ID"),
        ),
        (
            400,
            "application/xml",
            (
                f"{HEADER}<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region &apos;a&apos; is wrong; "
                "expecting &apos;eu-west-1&apos;</Message><Region>eu-west-1</Region></Error>"
            ),
            Reason.FETCH_FAILED,
            ("expecting 'eu-west-1'", "Region eu-west-1", "AWS_REGION"),
        ),
        (
            301,
            "application/xml",
            (
                f"{HEADER}<Error><Code>PermanentRedirect</Code><Message>Use the endpoint.</Message>"
                "<Endpoint>b.s3.eu-west-1.amazonaws.com</Endpoint></Error>"
            ),
            Reason.FETCH_FAILED,
            ("AWS_REGION",),
        ),
        (
            404,
            "application/xml",
            f"{HEADER}<Error>\n  <Code>NoSuchBucket</Code>\n  <Message>\n   gone\n  </Message></Error>",
            Reason.BUCKET_NOT_FOUND,
            ("NoSuchBucket: gone", "'b' does not exist"),
        ),
        (400, "application/json", '{"code": "Bad", "message": "no"}', Reason.FETCH_FAILED, ("Bad: no",)),
        (
            404,
            "text/html",
            "<!DOCTYPE html>\n<html><head><title>404 page</title></head></html>",
            Reason.FETCH_FAILED,
            ("HTTP 404", "404 page", "S3 endpoint"),
        ),
        (400, "text/plain", "\n\nsent HTTP to an HTTPS server", Reason.FETCH_FAILED, ("sent HTTP to an HTTPS",)),
        (200, "text/html", "<html><title>Console</title></html>", Reason.FETCH_FAILED, ("S3 endpoint",)),
        (403, "application/xml", "", Reason.ACCESS_DENIED, ("AWS_SECRET_ACCESS_KEY",)),
        (418, "application/xml", "", Reason.FETCH_FAILED, ("HTTP 418",)),
    ],
)
async def test_the_stores_own_words(status: int, kind: str, body: str, reason: Reason, parts: tuple[str, ...]) -> None:
    async with _server(status, body, kind) as url:
        failure = await _failure(S3Source("s3://b/m", {**SECRET, "AWS_ENDPOINT_URL": url}))
    assert failure.reason == reason
    assert failure.message.startswith("s3://b/m: ")
    assert "<" not in failure.message
    assert "\n" not in failure.message
    for part in parts:
        assert part in failure.message, failure.message


async def test_a_real_stores_words(store: Store) -> None:
    failure = await _failure(S3Source("s3://none-here/m", store.secret))
    assert failure.reason == Reason.BUCKET_NOT_FOUND
    assert "NoSuchBucket: The specified bucket does not exist" in failure.message


async def test_a_secret_without_the_keys_of_credentials_is_reported(store: Store) -> None:
    secret = {"accessKey": "x", "secretKey": "y", "AWS_ENDPOINT_URL": store.endpoint, "AWS_ALLOW_HTTP": "true"}
    store.put("closed", {"m/model.onnx": b"x"})
    failure = await _failure(S3Source("s3://closed/m", secret))
    assert failure.reason == Reason.ACCESS_DENIED
    assert "No credentials were sent" in failure.message
    assert "accessKey, secretKey" in failure.message


@pytest.mark.parametrize("scheme", ["s3", "https"])
@pytest.mark.parametrize(
    ("options", "part", "remedy"),
    [
        ({"host": "other.example"}, "is for another host, not for '127.0.0.1'", "host name"),
        ({"days": (-9, -2)}, "has expired", "Renew"),
        ({"days": (2, 9)}, "is not valid yet", "clock"),
        ({}, "has an unknown issuer", "ca.crt"),
    ],
)
async def test_a_certificate_that_is_not_trusted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    scheme: str,
    options: dict[str, object],
    part: str,
    remedy: str,
) -> None:
    certificate, key, authority = certificates.issued(tmp_path, **options)  # type: ignore[arg-type]
    if options:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))  # the machine's authorities: OpenSSL reads it
    async with _server(200, "", tls=(certificate, key)) as url:
        secret = {**SECRET, "AWS_ENDPOINT_URL": url} | ({"ca.crt": authority.read_text()} if options else {})
        source = S3Source("s3://b/m", secret) if scheme == "s3" else HttpsSource(f"{url}/model.onnx", {})
        failure = await _failure(source)
    assert failure.reason == Reason.UNREACHABLE
    assert part in failure.message, failure.message
    assert remedy in failure.message
    assert "DNS" not in failure.message


@pytest.mark.parametrize(
    ("endpoint", "part"),
    [
        ("https://store.invalid", "'store.invalid' cannot be resolved"),
        ("http://127.0.0.1:1", "nothing listens at 127.0.0.1:1"),
        ("https://127.0.0.1:1", "nothing listens at 127.0.0.1:1"),
    ],
)
async def test_a_store_that_is_not_there(endpoint: str, part: str) -> None:
    for source in (
        S3Source("s3://b/m", {**SECRET, "AWS_ENDPOINT_URL": endpoint}),
        HttpsSource(f"{endpoint}/m.onnx", {}),
    ):
        failure = await _failure(source)
        assert failure.reason == Reason.UNREACHABLE
        assert part in failure.message, failure.message


async def test_a_scheme_that_the_port_does_not_speak(tmp_path: Path) -> None:
    certificate, key, _ = certificates.issued(tmp_path)
    async with _server(200, "") as plain, _server(200, "", tls=(certificate, key)) as secure:
        for url, part in ((plain, "does not speak TLS"), (secure, "speaks TLS")):
            other = url.replace("http:", "https:") if url == plain else url.replace("https:", "http:")
            failure = await _failure(S3Source("s3://b/m", {**SECRET, "AWS_ENDPOINT_URL": other}))
            assert part in failure.message, failure.message


async def test_the_words_of_a_server_of_files() -> None:
    body = f"{HEADER}<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
    async with _server(403, body) as url:
        failure = await _failure(HttpsSource(f"{url}/model.onnx", {}))
    assert failure.reason == Reason.ACCESS_DENIED
    assert "AccessDenied: Request has expired" in failure.message


async def test_a_url_whose_port_is_none() -> None:
    failure = await _failure(HttpsSource("https://host:99999/model.onnx", {}))
    assert failure.reason == Reason.UNSUPPORTED


@pytest.fixture(params=OPENSSL)
def secure_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Store, Path]]:
    """A store that answers HTTPS with a certificate that OpenSSL made, and the certificate."""
    certificate, key = certificates.openssl(tmp_path / "tls", *OPENSSL[request.param])
    store = Store(tmp_path / "store", (certificate, key))
    yield store, certificate
    store.process.kill()


async def test_a_certificate_that_openssl_made_is_trusted_as_curl_does(
    secure_store: tuple[Store, Path], tmp_path: Path
) -> None:
    store, certificate = secure_store
    content = bytes(range(256)) * 40_000  # over two ranges
    store.put("safe", {"m/a model+1.onnx": content, "m/sub/x": b"x"})
    secret = {**store.secret, "AWS_ENDPOINT_URL": f"https://localhost:{store.https_port}", "AWS_ALLOW_HTTP": "false"}
    failure = await _failure(S3Source("s3://safe/m", secret))
    assert "unknown issuer" in failure.message
    source = S3Source("s3://safe/m", {**secret, "ca.crt": certificate.read_text()})
    listing = await source.list_files()
    fetched = await Fetch(source, tmp_path / "to").run(listing)
    assert (fetched.files / "a model+1.onnx").read_bytes() == content
    assert (fetched.files / "sub" / "x").read_bytes() == b"x"
    pinned = S3Source("s3://safe/m", {**secret, "ca.crt": certificate.read_text()})
    assert await pinned.list_versions({"sub/x": "null"}), "also where object versions are listed first"
    other, _ = certificates.openssl(tmp_path / "other", "-subj", "/CN=localhost")
    failure = await _failure(S3Source("s3://safe/m", {**secret, "ca.crt": other.read_text()}))
    assert "unknown issuer" in failure.message
    assert "ca.crt" in failure.message
