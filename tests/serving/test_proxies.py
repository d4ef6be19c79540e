"""Models behind a proxy: in the storage Secret, or in the environment that a platform gives to all containers."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.base import Source
from conch_agent.sources.destinations import Destinations, RefusedAddressError
from conch_agent.sources.hf import HfSource
from conch_agent.sources.https import HttpsSource
from conch_agent.sources.oci import OciSource
from conch_agent.sources.s3 import S3Source
from tests.serving.bad_server import serve
from tests.serving.certificates import issued
from tests.serving.http_proxy import HttpProxy
from tests.serving.identities import Issuer
from tests.serving.pod import Pod
from tests.serving.processes import until
from tests.serving.registry import Registry
from tests.serving.store import Store
from tests.serving.test_lifecycle import build_double, build_python
from tests.serving.test_pod_roles import ACCOUNT, ROLE, prepare
from tests.serving.test_redirects import lead
from tests.support.hub import serve_hub
from tests.support.plugin import run_plugin


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[HttpProxy]:
    proxy = HttpProxy(tmp_path / "proxy")
    yield proxy
    proxy.process.kill()


def until_served(proxy: HttpProxy, port: int) -> None:
    """The proxy logs a connection at its end."""
    until(lambda: proxy.count(port), "the proxy has served it", proxy.process)


def test_a_model_is_served_through_the_proxy_of_its_secret(store: Store, proxy: HttpProxy, pod: Pod) -> None:
    store.put("models", build_double("proxied", 2))
    pod.write_secret({**store.secret, "HTTP_PROXY": proxy.address})
    pod.write_manifest(build_python("s3://models/proxied"))
    pod.start()
    message = pod.until_reason("Unreachable").message
    assert f"the proxy {proxy.address} answered HTTP 407 Proxy Authentication Required." in message
    assert "Write user and password before the host in HTTP_PROXY." in message

    pod.write_secret({**store.secret, "HTTP_PROXY": proxy.url})
    pod.until_ready()
    until_served(proxy, store.port)
    log = (pod.root / "agent.log").read_text()
    assert "a:b@c" not in log
    assert "a%3Ab%40c" not in log


def test_a_model_is_served_through_the_proxy_of_the_environment(store: Store, proxy: HttpProxy, pod: Pod) -> None:
    store.put("models", build_double("proxied", 2))
    pod.write_secret(store.secret)
    pod.write_manifest(build_python("s3://models/proxied"))
    pod.start_agent(env={"http_proxy": proxy.url, "NO_PROXY": ".svc,10.0.0.0/8"})
    pod.start_triton()
    pod.until_ready()
    until_served(proxy, store.port)

    proxy.process.kill()
    pod.write_secret({**store.secret, "NO_PROXY": "127.0.0.0/8"})
    store.put("models", build_double("direct", 3))
    pod.write_manifest(build_python("s3://models/direct"))
    until(lambda: pod.model().digest and pod.ready, "it is read without the proxy", pod.agent)


def test_the_role_of_a_pod_is_assumed_through_the_proxy(proxy: HttpProxy, pod: Pod, tmp_path: Path) -> None:
    issuer = Issuer(tmp_path / "issuer")
    store = Store(tmp_path / "store", roles=issuer.build_roles(ROLE, ACCOUNT, "models"))
    try:
        store.put("models", build_double("double", 2))
        environment = prepare(pod, store, issuer.issue(ACCOUNT))
        pod.write_manifest(build_python("s3://models/double"))
        line = f"127.0.0.1:{store.port}"
        pod.start_agent(env=environment | {"HTTP_PROXY": proxy.url})
        pod.start_triton()
        pod.until_ready()
        until(lambda: "POST " + line in proxy.process.log.read_text(), "the role came by the proxy", proxy.process)
    finally:
        store.process.kill()
        issuer.server.kill()


@pytest.mark.parametrize("scheme", ["s3", "hf", "oci", "https"])
async def test_tls_is_between_the_pod_and_the_server(scheme: str, proxy: HttpProxy, tmp_path: Path) -> None:
    """The proxy connects, and has no certificate that the pod would have to trust."""
    certificate, key, authority = issued(tmp_path / "tls")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    network = {"ca.crt": authority.read_text(), "HTTPS_PROXY": proxy.url}
    source: Source
    with ExitStack() as stack:
        match scheme:
            case "s3":
                store = Store(tmp_path / "store", (certificate, key))
                stack.callback(store.process.kill)
                store.put("models", {"m/model.bin": b"content"})
                port = store.https_port
                source = S3Source(
                    "s3://models/m",
                    store.secret | network | {"AWS_ENDPOINT_URL": f"https://127.0.0.1:{store.https_port}"},
                )
            case "oci":
                registry = stack.enter_context(Registry(tmp_path / "registry", tls=(certificate, key)))
                registry.push("team/m:v1", {"model.bin": b"content"})
                port = registry.port
                source = OciSource(f"oci://{registry.host}/team/m:v1", network)
            case _:
                hub = stack.enter_context(serve_hub(context))
                commit = hub.commit("team/m", {"model.bin": b"content"})
                port = int(hub.url.rpartition(":")[2])
                source = HfSource("hf://team/m", network | {"HF_ENDPOINT": hub.url})
                if scheme == "https":
                    source = HttpsSource(f"{hub.url}/team/m/resolve/{commit}/model.bin", network)
        [item] = (await source.list_files()).items
        assert b"".join([bytes(block) async for block in source.read(item, 0)]) == b"content"
        until_served(proxy, port)


@pytest.mark.parametrize(
    ("url", "proxies", "words"),
    [
        (
            "https://127.0.0.1:1/m.onnx",
            {"HTTPS_PROXY": "http://127.0.0.1:{port}"},
            "the proxy http://127.0.0.1:{port} answered HTTP 407 Proxy Authentication Required. Write user and",
        ),
        (
            "http://127.0.0.1:1/m.onnx",
            {"HTTP_PROXY": "127.0.0.1:{port}"},
            "answered HTTP 407 Proxy Authentication Required. Write user and password before the host in HTTP_PROXY.",
        ),
        (
            "https://127.0.0.1:1/m.onnx",
            {"HTTPS_PROXY": "http://reader:wrong@127.0.0.1:{port}"},
            "Proxy Authentication Required. Correct user and password before the host in HTTPS_PROXY.",
        ),
        (
            "https://store.invalid/m.onnx",
            {"HTTPS_PROXY": "{login}"},
            "HTTP 502 Bad Gateway to a connection to store.invalid:443. Read the log of the proxy; the agent retries.",
        ),
        (
            "https://store.invalid/m.onnx",
            {"HTTPS_PROXY": "http://127.0.0.1:1"},
            "its proxy fails: nothing listens at 127.0.0.1:1 (connection refused). Correct HTTPS_PROXY, or its proxy.",
        ),
        (
            "https://store.invalid/m.onnx",
            {"HTTPS_PROXY": "http://proxy.invalid:3128"},
            "its proxy fails: the host name 'proxy.invalid' cannot be resolved",
        ),
        (
            "http://store.invalid/m.onnx",
            {"HTTPS_PROXY": "http://proxy.invalid:3128"},
            "the host name 'store.invalid' cannot be resolved",
        ),
        (
            "https://store.invalid/m.onnx",
            {"HTTPS_PROXY": "http://proxy.invalid:3128", "NO_PROXY": "other, .invalid"},
            "the host name 'store.invalid' cannot be resolved",
        ),
    ],
)
async def test_what_is_wrong_with_a_proxy_is_reported(
    url: str, proxies: dict[str, str], words: str, proxy: HttpProxy
) -> None:
    values = {"port": proxy.port, "login": proxy.url}
    secret = {name: value.format(**values) for name, value in proxies.items()}
    with pytest.raises(Failure) as raised:
        await HttpsSource(url, secret).list_files()
    assert raised.value.reason == Reason.UNREACHABLE
    assert words.format(**values) in raised.value.message


@pytest.mark.parametrize("host", ["169.254.169.254", "169.254.169.254.", "169%2e254.169.254"])
async def test_a_server_leads_the_agent_to_no_metadata_server_by_the_proxy(host: str, proxy: HttpProxy) -> None:
    async with serve() as bad:
        lead(f"http://{host}", bad)
        with pytest.raises(Failure, match=rf"leads to {re.escape(host)}.*, a link-local address"):
            await HttpsSource(f"{bad.url}/m/model.onnx", {"HTTP_PROXY": proxy.url}).list_files()
    assert "169.254" not in proxy.process.log.read_text()


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1."])
def test_a_server_leads_the_agent_to_no_loopback_by_a_proxy_of_the_pod(host: str) -> None:
    with pytest.raises(RefusedAddressError, match="a loopback address, to which no server may lead the agent"):
        Destinations("store.example").check(host, ())


@pytest.mark.parametrize("scheme", ["s3", "oci", "http"])
def test_a_model_is_pushed_through_the_proxy(scheme: str, store: Store, proxy: HttpProxy, tmp_path: Path) -> None:
    folder, environment = tmp_path / "model", {"HTTP_PROXY": proxy.url, "http_proxy": proxy.url}
    folder.mkdir()
    (folder / "model.bin").write_bytes(b"content")
    with ExitStack() as stack:
        match scheme:
            case "s3":
                target, port = "s3://pushes/proxied", store.port
                environment |= store.secret
            case "oci":
                registry = stack.enter_context(Registry(tmp_path / "registry"))
                target, port = f"oci://{registry.host}/team/proxied:v1", registry.port
                environment["OCI_PLAIN_HTTP"] = "true"
            case _:
                target, port = f"{store.files}/proxied/model.tar.zst", store.filer_port
                run_plugin("model", "pack", folder, "--to", tmp_path / "model.tar.zst")
                folder = tmp_path / "model.tar.zst"
        assert run_plugin("model", "push", folder, target, environment=environment)["sent"]
        until_served(proxy, port)
