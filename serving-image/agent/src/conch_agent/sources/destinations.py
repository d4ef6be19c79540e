"""The addresses to which a source connects: that of the user, and those to which a server leads the agent.

A server leads to another one by a redirect, or as the token service of a registry. It could so have the agent send
requests to what only the pod reaches: Triton, the agent itself, the API server.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Sequence
from typing import Any, Final, Self
from urllib.parse import unquote

from aiohttp.abc import ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from conch_contract.addresses import Address, is_forbidden, is_loopback, parse_address

_API_SERVER: Final = "KUBERNETES_SERVICE_HOST"  # the kubelet sets it in all containers


_API_SERVER_ADDRESS: Final = "the address of the API server, to which no server may lead the agent"


class RefusedAddressError(ValueError):
    """An address to which the agent does not connect.

    Attributes:
        where: The host, with its address.
        what: What it is, as an apposition.
        is_named: True if the user has named the host.
    """

    def __init__(self, where: str, what: str, *, is_named: bool) -> None:
        super().__init__(f"{where} is {what}")
        self.where = where
        self.what = what
        self.is_named = is_named


class Destinations:
    """The addresses for one source, whose host the user has named."""

    def __init__(self, host: str, allowed: frozenset[Address] = frozenset()) -> None:
        """Create it for a host.

        Args:
            host: The host that the user has named: a name or an address.
            allowed: Link-local addresses that it may have.
        """
        self._allowed = allowed
        self._named = _clean(host)
        self._is_loopback = is_loopback(parse_address(host))
        self._api_server = _clean(os.environ.get(_API_SERVER, ""))

    @classmethod
    def of_url(cls, url: str) -> Self:
        """Return the addresses for a source whose URL the user has named.

        Args:
            url: The URL; of a text that is none, a request reports it.
        """
        try:
            return cls(URL(url).host or "")
        except ValueError:
            return cls("")

    def check(self, host: str, addresses: Sequence[str]) -> None:
        """Refuse to connect to a host.

        Args:
            host: The host.
            addresses: The addresses to one of which the connection will be made; without any, the host is resolved
                first if it is a name.

        Raises:
            RefusedAddressError: One of them is refused.
        """
        host = _clean(host)
        is_named = host == self._named
        candidates = map(parse_address, addresses) if addresses else [_parse_host(host)]
        found = [address for address in candidates if address]
        if is_named:
            self._is_loopback = self._is_loopback or any(map(is_loopback, found))
        elif host == self._api_server:
            raise RefusedAddressError(host, _API_SERVER_ADDRESS, is_named=False)
        for address in found:
            if what := self._find_problem(address, is_named=is_named):
                where = host if parse_address(host) else f"{host} ({address})"
                raise RefusedAddressError(where, what, is_named=is_named)

    def _find_problem(self, address: Address, *, is_named: bool) -> str:
        """Return what an address is that is refused; empty: it is not."""
        if is_forbidden(address) and not (is_named and address in self._allowed):
            return "a link-local address or a cloud's metadata server, which Conch never contacts"
        if is_named:
            return ""
        if is_loopback(address) and not self._is_loopback:
            return "a loopback address, to which no server may lead the agent"
        return _API_SERVER_ADDRESS if address == parse_address(self._api_server) else ""

    async def resolve(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host to which the agent may connect.

        Args:
            host: A name or an address.
            port: The port.

        Raises:
            RefusedAddressError: One of them is refused.
            OSError: There are none.
        """
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(address[0]) for *_, address in found]
        self.check(host, addresses)
        return addresses


def _clean(host: str) -> str:
    """Return a host as others are compared with it: in small letters, an IPv6 address without brackets."""
    return host.strip().strip("[]").lower()


def _parse_host(host: str) -> Address | None:
    """Return the address of a host that no resolver of the pod reads, but perhaps a proxy; None: it is a name.

    >>> [str(_parse_host(host)) for host in ("127%2e0.0.1", "127.0.0.1.", "a.localhost", "store.example")]
    ['127.0.0.1', '127.0.0.1', '127.0.0.1', 'None']
    """
    name = unquote(host).rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761, section 6.3
        return ipaddress.IPv4Address("127.0.0.1")
    return parse_address(host) or parse_address(name)


class CheckedResolver(ThreadedResolver):
    """Resolves names for connections, which are then made to the addresses that were checked."""

    def __init__(self, destinations: Destinations, proxies: frozenset[tuple[str, int]]) -> None:
        """Create the resolver.

        Args:
            destinations: The addresses to which it may lead.
            proxies: Host and port of the proxies, which the user has named too.
        """
        super().__init__()
        self._destinations = destinations
        self._proxies = proxies

    async def resolve(self, host: str, port: int = 0, *args: Any, **kwargs: Any) -> list[ResolveResult]:
        """Return the addresses of a name.

        Args:
            host: The name.
            port: The port.
            *args: As in ThreadedResolver.
            **kwargs: As in ThreadedResolver.

        Raises:
            RefusedAddressError: The agent does not connect to one of them.
        """
        addresses = await super().resolve(host, port, *args, **kwargs)
        destinations = Destinations(host) if (host.lower(), port) in self._proxies else self._destinations
        destinations.check(host, [address["host"] for address in addresses])
        return addresses
