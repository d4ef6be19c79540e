"""Where to ask: what `--url` says, else the service's own addresses, else a tunnel of kubectl's to one of its pods.

Which address can be reached is tried out: a cluster's names are known within it, its Services' addresses perhaps to
the machines around it, a gateway's to all.
"""

import asyncio
import contextlib
import re
import shutil
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from conch.api import InferenceService
from conch.cli.loading.wish import Wish
from conch.cli.options import Access, Refused
from conch_contract import names

PORTS: Final = {"http": names.HTTP_PORT, "grpc": names.GRPC_PORT}
_START_SECONDS: Final = 20
_END_SECONDS: Final = 5
_LISTENS: Final = re.compile(r"Forwarding from 127\.0\.0\.1:([0-9]+) ")


@dataclass(frozen=True)
class Way:
    """host:port (over HTTP perhaps with a path), and what to say of it."""

    address: str
    tls: bool = False
    told: str = ""
    lost: Callable[[], str] = str  # why it leads nowhere any more; empty while it does


def named(url: str) -> Way:
    """Read `--url`: http or https (for gRPC too: without and with TLS), or just host:port.

    Raises:
        Refused: it is none of these.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in {"http", "https"} or parts.username or parts.query or parts.fragment:
        raise Refused(f"--url {url}: expected http://host:port or https://host:port, or just host:port")
    tls = parts.scheme == "https"
    shown = f"[{host}]" if ":" in host else host
    return Way(f"{shown}:{port or (443 if tls else 80)}{parts.path.rstrip('/')}", tls, url)


def own(service: InferenceService, protocol: str, cluster_ip: str) -> list[Way]:
    """Return the addresses that the service has by itself: its names at gateways, then those within the cluster.

    A gateway shares requests out among predictor and variants; a variant alone has but its own Service.
    """
    hosts = service.spec.traffic.hostnames if service.spec.traffic and not service.variant else ()
    found = [f"http://{host}" for host in hosts if not host.startswith("*")]
    inside = [urlsplit(service.status.url).hostname] if service.status.url else []
    if cluster_ip:
        inside.append(f"[{cluster_ip}]" if ":" in cluster_ip else cluster_ip)
    return [named(url) for url in (*found, *(f"http://{host}:{PORTS[protocol]}" for host in inside))]


@contextlib.asynccontextmanager
async def open_way(
    service: InferenceService,
    access: Access,
    wish: Wish,
    cluster_ip: str,
    answers: Callable[[Way], Awaitable[bool]],
) -> AsyncIterator[Way]:
    """Yield the first way on which the model answers; a tunnel lives as long as it is used.

    Raises:
        Refused: there is no way.
    """
    if wish.url is not None:
        way = named(wish.url)
        if wish.protocol == "grpc" and "/" in way.address:
            raise Refused(f"--url {wish.url}: gRPC knows no paths; leave the path out, or say --protocol http")
        yield way
        return
    for way in () if wish.port_forward else own(service, wish.protocol, cluster_ip):
        if await answers(way):
            yield way
            return
    async with _tunnel(service, access, PORTS[wish.protocol]) as way:
        yield way


@contextlib.asynccontextmanager
async def _tunnel(service: InferenceService, access: Access, port: int) -> AsyncIterator[Way]:
    """Forward a free port of this machine, as `kubectl port-forward` does, by doing just that."""
    program = shutil.which("kubectl")
    if program is None:
        raise Refused(
            f"{service.status.url} is not reached from here, and there is no kubectl in PATH to forward a port; say"
            " where to ask with --url"
        )
    command = [program, *forwarding(service, access, port)]
    # Ctrl-C is for the run, which ends the tunnel when its answers are there.
    process = await asyncio.create_subprocess_exec(
        *command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, start_new_session=True
    )
    said: deque[str] = deque(maxlen=5)
    reading = asyncio.create_task(_collect(process.stderr, said))
    listening: asyncio.Task[None] | None = None
    try:
        here = await _listening(process, said)
        listening = asyncio.create_task(_collect(process.stdout, deque(maxlen=1)))

        def lost() -> str:
            return "" if process.returncode is None else " ".join(said) or f"kubectl ended with {process.returncode}"

        yield Way(f"127.0.0.1:{here}", told=f"kubectl port-forward to one pod of {service.track}", lost=lost)
    finally:
        await _end(process)
        for task in filter(None, (reading, listening)):
            await task


def forwarding(service: InferenceService, access: Access, port: int) -> list[str]:
    """Return kubectl's arguments, by which it chooses a free port here."""
    cluster = [
        f"--{option}={value}"
        for option, value in (("kubeconfig", access.kubeconfig), ("context", access.context))
        if value
    ]
    where = f"--namespace={service.metadata.namespace}"
    return ["port-forward", *cluster, where, "--address=127.0.0.1", f"service/{service.track}", f":{port}"]


async def _listening(process: Process, said: deque[str]) -> int:
    """Return the port that kubectl chose."""
    assert process.stdout is not None  # noqa: S101  it is a pipe
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_START_SECONDS):
            while line := await process.stdout.readline():
                if found := _LISTENS.match(line.decode(errors="replace")):
                    return int(found[1])
            await process.wait()
    await _end(process)
    why = " ".join(said) or f"it did not begin within {_START_SECONDS} s"
    raise Refused(f"kubectl port-forward: {why}; say where to ask with --url")


async def _collect(stream: asyncio.StreamReader | None, said: deque[str]) -> None:
    """Read what a process says, so that it never waits for a reader."""
    assert stream is not None  # noqa: S101  it is a pipe
    while line := await stream.readline():
        said.append(line.decode(errors="replace").strip())


async def _end(process: Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(_END_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
