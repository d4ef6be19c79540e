"""Proxies between the pod and the servers of a source, by the variables that curl and other programs read.

They are keys of the storage Secret, or variables of the container's environment, as a platform adds them to all pods.
A proxy resolves the names of servers itself, so what it may reach is its own rule: here only its own address, and
servers that are named by addresses, are checked.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final
from urllib.parse import unquote, urlsplit

from yarl import URL

from conch_agent.sources.secret_settings import SettingKey, WrongFormError, format_value, parse_endpoint
from conch_contract.addresses import check_address, parse_address

_WRITE: Final = "Write a URL such as http://proxy.example:3128"
_WRITE_HOSTS: Final = "Write hosts, domains and networks such as .svc,10.0.0.0/8, with commas between them"
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Proxy:
    """A proxy for HTTP.

    Attributes:
        key: The key of PROXY_KEYS that has it.
        url: Its URL without user and password.
        host: Its host: a name or an address.
        port: Its port.
        user: The user; empty: it takes requests without.
        password: The password.
    """

    key: str
    url: str
    host: str
    port: int
    user: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True)
class Direct:
    """Servers that are reached without a proxy; port None: all of its ports."""

    domain: str = ""
    network: _Network | None = None
    port: int | None = None

    def has(self, host: str, port: int | None) -> bool:
        if self.port not in (None, port):
            return False
        address = parse_address(host)
        if self.network:
            return address is not None and address in self.network
        return self.domain == "*" or f".{host}".endswith(f".{self.domain}")


@dataclass(frozen=True)
class Proxies:
    """The proxies of one source.

    Attributes:
        https: For URLs with https://; None: there is none.
        http: For URLs with http://.
        direct: Servers that are reached without.
    """

    https: Proxy | None = None
    http: Proxy | None = None
    direct: tuple[Direct, ...] = ()

    def find(self, url: URL) -> Proxy | None:
        """Return the proxy for a URL; None: there is none.

        Args:
            url: The URL.

        >>> proxies = Proxies(parse_proxy("HTTPS_PROXY", "proxy:3128"), direct=parse_direct(".svc, 10.0.0.0/8"))
        >>> [bool(proxies.find(URL(f"https://{host}"))) for host in ("store.example", "store.a.svc", "10.1.2.3")]
        [True, False, False]
        """
        host = (url.host or "").lower().rstrip(".")
        if any(each.has(host, url.port) for each in self.direct):
            return None
        return self.https if url.scheme == "https" else self.http

    @property
    def addresses(self) -> frozenset[tuple[str, int]]:
        """Host and port of each."""
        return frozenset((each.host, each.port) for each in (self.http, self.https) if each)


def parse_proxy(key: str, text: str) -> Proxy:
    """Return a proxy.

    Args:
        key: As in Proxy.
        text: `http://user:password@host:port`, or with https; without a scheme it is http.

    Raises:
        WrongFormError: It is no such URL. The text has no password.

    >>> parse_proxy("HTTP_PROXY", "http://me:a%40b@proxy:3128")
    Proxy(key='HTTP_PROXY', url='http://proxy:3128', host='proxy', port=3128, user='me')
    """
    scheme, _, rest = text.rpartition("://")
    login, _, place = rest.rpartition("@")
    if scheme.lower() not in ("", "http", "https"):
        message = f"is a proxy with {format_value(f'{scheme}://')}, and Conch takes proxies for HTTP"
        raise WrongFormError(message, _WRITE)
    try:
        endpoint = parse_endpoint(f"{scheme.lower() or 'http'}://{place.rstrip('/')}", "")
    except WrongFormError as error:
        raise WrongFormError(str(error), _WRITE) from None
    if urlsplit(endpoint.url).path:
        message = f"is {format_value(endpoint.url)}, and a proxy has no path"
        raise WrongFormError(message)
    try:
        check_address(endpoint.host)
    except ValueError as error:
        raise WrongFormError(f"is {format_value(endpoint.url)}, and {error}") from None
    user, _, password = (unquote(part) for part in login.partition(":"))
    if not (user + password).isprintable():
        message = "has a control character in its user or password"
        raise WrongFormError(message)
    if ":" in user:
        message = "has a colon in its user, which no proxy takes"
        raise WrongFormError(message)
    return Proxy(key, endpoint.url, endpoint.host, endpoint.port, user, password)


def parse_direct(text: str) -> tuple[Direct, ...]:
    """Return the servers that are reached without a proxy.

    Args:
        text: Hosts, domains, addresses and networks with commas or blanks between them; `*` is all servers.

    Raises:
        WrongFormError: One of them has none of these forms.
    """
    return tuple(_parse_direct(entry.lower()) for entry in re.split(r"[\s,]+", text) if entry)


def _parse_direct(entry: str) -> Direct:
    try:
        return Direct(network=ipaddress.ip_network(entry.strip("[]"), strict=False))
    except ValueError:
        pass
    host, colon, port = entry.rpartition(":") if re.search(r":\d+$", entry) else (entry, "", "")
    if address := parse_address(host) if colon else None:
        return Direct(network=ipaddress.ip_network(address), port=int(port))
    domain = host.removeprefix("*.").strip(".")
    if not re.fullmatch(r"\*|[a-z0-9_-]+(\.[a-z0-9_-]+)*", domain):
        message = f"has {format_value(entry)}, which is no host, domain or network"
        raise WrongFormError(message)
    return Direct(domain=domain, port=int(port) if colon else None)


PROXY_KEYS: Final[Mapping[str, SettingKey]] = {
    **{key: SettingKey(key.lower(), partial(parse_proxy, key), _WRITE) for key in ("HTTPS_PROXY", "HTTP_PROXY")},
    "NO_PROXY": SettingKey("no_proxy", parse_direct, _WRITE_HOSTS),
}
