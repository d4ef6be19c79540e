"""Where a server may lead the agent: in a network of its own, in which the server is not on loopback."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from conch_agent.fetch import Fetch
from conch_agent.reasons import Failure, Reason
from conch_agent.sources.https import HttpsSource
from conch_agent.sources.oci import OciSource
from tests.serving.bad_server import CONTENT, Answer, BadServer, Request, send, serve
from tests.support.namespaces import add_address, name_hosts, run_apart

# RFC 5737: addresses for documentation, which no machine has.
STORE, OTHER, API_SERVER = "192.0.2.1", "192.0.2.2", "192.0.2.3"
HOSTS: Final = {
    "other.example": OTHER,
    "inside.example": "127.0.0.1",
    "metadata.example": "169.254.169.254",
    "kubernetes.default.svc": API_SERVER,
}
LOOPBACK = "a loopback address, to which no server may lead the agent"
LINK_LOCAL = "a link-local address or a cloud's metadata server, which Conch never contacts"
API = "the address of the API server, to which no server may lead the agent"
# By the host of a redirect: where it leads.
REFUSED: Final[Mapping[str, str]] = {
    "127.0.0.1": f"127.0.0.1, {LOOPBACK}",
    "127.9.9.9": f"127.9.9.9, {LOOPBACK}",
    "0.0.0.0": f"0.0.0.0, {LOOPBACK}",  # noqa: S104  where a connection is made to
    "[::1]": f"::1, {LOOPBACK}",
    "[::ffff:127.0.0.1]": f"::ffff:7f00:1, {LOOPBACK}",
    "127.1": f"127.1, {LOOPBACK}",
    "2130706433": f"2130706433, {LOOPBACK}",
    "localhost": f"localhost (127.0.0.1), {LOOPBACK}",
    "inside.example": f"inside.example (127.0.0.1), {LOOPBACK}",
    "169.254.169.254": f"169.254.169.254, {LINK_LOCAL}",
    "169.254.43518": f"169.254.43518, {LINK_LOCAL}",
    "[fe80::1]": f"fe80::1, {LINK_LOCAL}",
    "metadata.example": f"metadata.example (169.254.169.254), {LINK_LOCAL}",
    API_SERVER: f"{API_SERVER}, {API}",
    "kubernetes.default.svc": f"kubernetes.default.svc ({API_SERVER}), {API}",
}
SETTINGS = {
    "s3": "AWS_ENDPOINT_URL in the storage Secret",
    "gs": "GOOGLE_BASE_URL in the storage Secret",
    "https": "storageUri",
    "hf": "HF_ENDPOINT in the storage Secret",
}


@asynccontextmanager
async def trap(host: str | None = None, port: int = 0) -> AsyncGenerator[tuple[int, list[object]], None]:
    """Listen at an address, by default at all; yield the port, and the connections that are accepted."""
    accepted: list[object] = []

    def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer.get_extra_info("sockname"))
        writer.close()

    server = await asyncio.start_server(accept, host, port, family=socket.AF_INET)
    yield server.sockets[0].getsockname()[1], accepted
    server.close()


@asynccontextmanager
async def trap_at(other: BadServer) -> AsyncGenerator[list[object], None]:
    """Listen on loopback at the port of a server; yield the connections that are accepted."""
    async with trap("127.0.0.1", int(other.url.rpartition(":")[2])) as (_, accepted):
        yield accepted


def prepare_network(root: Path, hosts: Mapping[str, str] = HOSTS) -> None:
    for address in (STORE, OTHER, API_SERVER):
        add_address(address)
    name_hosts(root / "hosts", {"localhost": "127.0.0.1", **hosts})
    os.environ["KUBERNETES_SERVICE_HOST"] = API_SERVER


def lead(url: str, bad: BadServer) -> None:
    """Have requests for the file redirected."""

    async def answer(request: Request, _: Answer, writer: asyncio.StreamWriter) -> None:
        writer.write(Answer(307, {"Location": f"{url}{request.target}", "Content-Length": "0"}, b"").head)

    bad.on_file = answer


async def fetch(bad: BadServer, scheme: str, folder: Path) -> bytes:
    source = bad.open_source(scheme)
    fetched = await Fetch(source, folder).run(await source.list_files())
    return (fetched.files / "model.onnx").read_bytes()


async def find_failure(bad: BadServer, scheme: str, folder: Path) -> Failure:
    with pytest.raises(Failure) as raised:
        await fetch(bad, scheme, folder)
    return raised.value


async def refuse_redirects(root: Path, scheme: str) -> None:
    prepare_network(root)
    async with serve(host=STORE) as bad, trap() as (port, accepted):
        source = bad.open_source(scheme)
        store = f": the store at {bad.url}" if scheme in {"s3", "gs"} else ""
        for host, where in REFUSED.items():
            lead(f"http://{host}:{port}", bad)
            failure = await find_failure(bad, scheme, root / "refused")
            assert failure.reason == Reason.FETCH_FAILED
            assert not failure.is_outage, "the last files of the cache do not replace what this server has"
            message = f"{source.uri}{store} leads to {where}. Correct {SETTINGS[scheme]}, or the server."
            assert failure.message == message, failure.message
        assert accepted == []


async def follow_redirects(root: Path, scheme: str) -> None:
    prepare_network(root)
    async with serve(host=STORE) as bad, serve(host=OTHER) as other:
        for host in (OTHER, "other.example"):
            lead(other.url.replace(OTHER, host), bad)
            assert await fetch(bad, scheme, root / host) == CONTENT
    async with serve(host="127.0.0.1") as bad, serve(host="127.0.0.1") as other:
        bad.url = bad.url.replace("127.0.0.1", "inside.example")  # the user names a server on loopback
        for host in ("127.0.0.1", "localhost"):
            lead(other.url.replace("127.0.0.1", host), bad)
            assert await fetch(bad, scheme, root / f"inside-{host}") == CONTENT


async def refuse_a_name_that_changes(root: Path) -> None:
    """The first file is read from another server, whose name then leads into the pod."""
    prepare_network(root)
    async with serve(host=STORE) as bad, serve(host=OTHER) as other, trap_at(other) as accepted:

        async def answer(request: Request, right: Answer, writer: asyncio.StreamWriter) -> None:
            name_hosts(root / "hosts", {"other.example": "127.0.0.1"})
            await send(request, right, writer)

        other.on_file = answer
        lead(other.url.replace(OTHER, "other.example"), bad)
        source = HttpsSource(f"{bad.url}/m/model.onnx", {})
        [item] = (await source.list_files()).items
        with pytest.raises(Failure) as raised:
            assert [block async for block in source.read(item, 0)]
        assert f"leads to other.example (127.0.0.1), {LOOPBACK}" in raised.value.message
        assert accepted == []


async def refuse_a_second_resolution(root: Path) -> None:
    """A server that breaks the connection is tried with TLS: at an address that was checked, too."""
    prepare_network(root)
    async with serve(host=STORE) as bad, serve(host=OTHER) as other, trap_at(other) as accepted:

        async def end(_: Request, __: Answer, writer: asyncio.StreamWriter) -> None:
            name_hosts(root / "hosts", {"other.example": "127.0.0.1"})
            writer.write(b"no HTTP\r\n\r\n")
            writer.close()

        other.on_file = end
        lead(other.url.replace(OTHER, "other.example"), bad)
        failure = await find_failure(bad, "https", root / "to")
        assert "other.example" in failure.message
        assert accepted == []


async def refuse_token_services(root: Path) -> None:
    prepare_network(root)
    async with serve(host=STORE) as bad, trap() as (port, accepted):
        for host, where in REFUSED.items():

            async def answer(_: Request, __: Answer, writer: asyncio.StreamWriter, host: str = host) -> None:
                challenge = f'Bearer realm="http://{host}:{port}/token",service="s"'
                writer.write(Answer(401, {"WWW-Authenticate": challenge, "Content-Length": "0"}, b"").head)

            bad.on_list = answer
            uri = f"oci://{bad.url.removeprefix('http://')}/team/model:v1"
            with pytest.raises(Failure) as raised:
                await OciSource(uri, {"OCI_PLAIN_HTTP": "true"}).list_files()
            assert raised.value.reason == Reason.FETCH_FAILED
            assert raised.value.message == f"{uri} leads to {where}. Correct storageUri, or the server.", (
                raised.value.message
            )
        assert accepted == []


def run(story: Callable[..., Coroutine[None, None, None]], *arguments: object) -> None:
    asyncio.run(story(*arguments))


@pytest.mark.parametrize("scheme", SETTINGS)
def test_a_redirect_to_loopback_link_local_or_the_api_server(tmp_path: Path, scheme: str) -> None:
    run_apart(partial(run, refuse_redirects, tmp_path, scheme), has_threads=True)


@pytest.mark.parametrize("scheme", SETTINGS)
def test_a_redirect_to_another_server_or_from_loopback_to_loopback_is_followed(tmp_path: Path, scheme: str) -> None:
    run_apart(partial(run, follow_redirects, tmp_path, scheme), has_threads=True)


def test_a_redirect_to_a_name_whose_address_changes_to_loopback(tmp_path: Path) -> None:
    run_apart(partial(run, refuse_a_name_that_changes, tmp_path), has_threads=True)


def test_no_address_is_resolved_a_second_time_to_find_the_cause_of_a_failure(tmp_path: Path) -> None:
    run_apart(partial(run, refuse_a_second_resolution, tmp_path), has_threads=True)


def test_a_token_service_on_loopback_link_local_or_the_api_server(tmp_path: Path) -> None:
    run_apart(partial(run, refuse_token_services, tmp_path), has_threads=True)
