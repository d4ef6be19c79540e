"""The endpoint of a load test: `--url`, else an address of the service, else its pods through the API server.

Addresses are tried in order: names of a cluster resolve only inside it, its cluster IPs may be routed to machines
around it, and a gateway's host name is public.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from conch.api import InferenceService
from conch.cli.cluster import Cluster
from conch.cli.loadtest.forward import open_forward
from conch.cli.loadtest.options import LoadOptions
from conch.cli.options import CommandError
from conch_contract import names

PORTS: Final = {"http": names.HTTP_PORT, "grpc": names.GRPC_PORT}


@dataclass(frozen=True)
class Endpoint:
    """host:port (over HTTP perhaps with a path), and its description."""

    address: str
    tls: bool = False
    description: str = ""
    read_error: Callable[[], str] = str  # returns why it does not work any more; empty: it works


def parse_url(url: str) -> Endpoint:
    """Return the endpoint of `--url`: http or https (for gRPC too: without and with TLS), or just host:port.

    Raises:
        CommandError: the URL is none of these.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in {"http", "https"} or parts.username or parts.query or parts.fragment:
        raise CommandError(f"--url {url}: expected http://host:port or https://host:port, or just host:port")
    tls = parts.scheme == "https"
    shown = f"[{host}]" if ":" in host else host
    return Endpoint(f"{shown}:{port or (443 if tls else 80)}{parts.path.rstrip('/')}", tls, url)


def list_endpoints(service: InferenceService, protocol: str, cluster_ip: str) -> list[Endpoint]:
    """Return the endpoints of a service: its host names at gateways, then its names and addresses in the cluster.

    A gateway splits requests between predictor and variants; a variant alone has only its own Service.
    """
    hosts = service.spec.traffic.hostnames if service.spec.traffic and not service.variant else ()
    found = [f"http://{host}" for host in hosts if not host.startswith("*")]
    inside = [urlsplit(service.status.url).hostname] if service.status.url else []
    if cluster_ip:
        inside.append(f"[{cluster_ip}]" if ":" in cluster_ip else cluster_ip)
    return [parse_url(url) for url in (*found, *(f"http://{host}:{PORTS[protocol]}" for host in inside))]


@contextlib.asynccontextmanager
async def open_endpoint(
    cluster: Cluster,
    service: InferenceService,
    options: LoadOptions,
    cluster_ip: str,
    is_ready: Callable[[Endpoint], Awaitable[bool]],
) -> AsyncIterator[Endpoint]:
    """Yield the first endpoint at which the model is ready, or a port-forward, which is closed afterwards.

    Raises:
        CommandError: there is none.
        CallError: the user may not forward ports.
    """
    if options.url is not None:
        endpoint = parse_url(options.url)
        if options.protocol == "grpc" and "/" in endpoint.address:
            raise CommandError(f"--url {options.url}: gRPC has no paths; remove the path, or set --protocol http")
        yield endpoint
        return
    for endpoint in () if options.port_forward else list_endpoints(service, options.protocol, cluster_ip):
        if await is_ready(endpoint):
            yield endpoint
            return
    async with open_forward(cluster, service.track, PORTS[options.protocol]) as (address, forward):
        description = f"through the API server, to the ready pods of {service.track}"
        yield Endpoint(address, description=description, read_error=lambda: forward.error)
