"""Where to ask: what `--url` says, else the service's own addresses, else its pods through the API server.

Which address can be reached is tried out: a cluster's names are known within it, its Services' addresses perhaps to
the machines around it, a gateway's to all.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from conch.api import InferenceService
from conch.cli.cluster import Cluster
from conch.cli.loadtest.forward import open_forward
from conch.cli.loadtest.options import Wish
from conch.cli.options import Refused
from conch_contract import names

PORTS: Final = {"http": names.HTTP_PORT, "grpc": names.GRPC_PORT}


@dataclass(frozen=True)
class TrackRoute:
    """host:port (over HTTP perhaps with a path), and what to say of it."""

    address: str
    tls: bool = False
    told: str = ""
    lost: Callable[[], str] = str  # why it leads nowhere any more; empty while it does


def named(url: str) -> TrackRoute:
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
    return TrackRoute(f"{shown}:{port or (443 if tls else 80)}{parts.path.rstrip('/')}", tls, url)


def own(service: InferenceService, protocol: str, cluster_ip: str) -> list[TrackRoute]:
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
    cluster: Cluster,
    service: InferenceService,
    wish: Wish,
    cluster_ip: str,
    answers: Callable[[TrackRoute], Awaitable[bool]],
) -> AsyncIterator[TrackRoute]:
    """Yield the first way on which the model answers; a port-forward lives as long as it is used.

    Raises:
        Refused: there is no way.
        CallError: the user may not forward ports.
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
    async with open_forward(cluster, service.track, PORTS[wish.protocol]) as (address, forward):
        description = f"through the API server, to the ready pods of {service.track}"
        yield TrackRoute(address, told=description, lost=lambda: forward.error)
