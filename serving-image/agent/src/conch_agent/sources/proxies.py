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
from urllib.parse import quote, unquote, urlsplit

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

    def build_login_url(self) -> str:
        """Return the URL with user and password, whose special characters are escaped.

        >>> parse_proxy("HTTP_PROXY", "me:a/b#c@proxy:3128").build_login_url()
        'http://me:a%2Fb%23c@proxy:3128'
        """
        if not (self.user or self.password):
            return self.url
        scheme, _, place = self.url.partition("://")
        return f"{scheme}://{quote(self.user, safe='')}:{quote(self.password, safe='')}@{place}"


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
            return any(each in self.network for each in (address, getattr(address, "ipv4_mapped", None)) if each)
        return self.domain == "*" or f".{host}".endswith(f".{self.domain}")

    def __str__(self) -> str:
        """An entry of NO_PROXY that other programs read in the same sense, as far as they can."""
        if self.network:
            address = self.network.network_address
            place = str(address if self.network.num_addresses == 1 else self.network)
            is_bracketed = self.port is not None and address.version == 6
            place = f"[{place}]" if is_bracketed else place
        else:  # without a dot, pip takes it for the end of a name; with one and a port, for subdomains alone
            place = self.domain if self.domain == "*" or self.port is not None else f".{self.domain}"
        return place if self.port is None else f"{place}:{self.port}"


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
        host = (url.raw_host or "").lower().rstrip(".")  # an international name as DNS has it
        if any(each.has(host, url.port) for each in self.direct):
            return None
        return self.https if url.scheme == "https" else self.http

    @property
    def addresses(self) -> frozenset[tuple[str, int]]:
        """Host and port of each."""
        return frozenset((each.host, each.port) for each in (self.http, self.https) if each)

    def build_variables(self) -> dict[str, str]:
        """Return the variables of another program's environment.

        >>> proxies = Proxies(http=parse_proxy("HTTP_PROXY", "proxy"), direct=parse_direct("*.svc [::1]:80 10.0.0.1"))
        >>> proxies.build_variables()
        {'HTTP_PROXY': 'http://proxy', 'NO_PROXY': '.svc,[::1]:80,10.0.0.1'}
        """
        found = {"HTTPS_PROXY": self.https, "HTTP_PROXY": self.http}
        variables = {name: proxy.build_login_url() for name, proxy in found.items() if proxy}
        return {**variables, **({"NO_PROXY": ",".join(map(str, self.direct))} if self.direct else {})}


def parse_proxy(key: str, text: str) -> Proxy:
    """Return a proxy.

    Args:
        key: As in Proxy.
        text: `http://user:password@host:port`, or with https; without a scheme it is http.

    Raises:
        WrongFormError: It is no such URL. The message has no part of it that may be a password, such as after a colon
            where the @ is missing.

    >>> parse_proxy("HTTP_PROXY", "http://me:a%40b@proxy:3128")
    Proxy(key='HTTP_PROXY', url='http://proxy:3128', host='proxy', port=3128, user='me')
    """
    scheme, has_scheme, rest = text.partition("://")
    if not has_scheme or not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*", scheme):
        scheme, rest = "http", text
    login, _, place = rest.rpartition("@")
    if scheme.lower() not in ("http", "https"):
        message = f"is a proxy with {format_value(f'{scheme}://')}, and Conch takes proxies for HTTP"
        raise WrongFormError(message)
    try:
        endpoint = parse_endpoint(f"{scheme.lower()}://{place.rstrip('/')}", "")
    except WrongFormError:
        message = "is no URL of a proxy, which has a host, a port, and before them user:password@ if it needs a login"
        raise WrongFormError(message) from None
    if urlsplit(endpoint.url).path:
        message = "has a path, and a proxy has none"
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
    url = URL(endpoint.url)
    return Proxy(key, endpoint.url, url.raw_host or "", endpoint.port, user, password)


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
    host, colon, port = entry.rpartition(":") if re.search(r":[0-9]{1,5}$", entry) else (entry, "", "")
    if address := parse_address(host) if colon else None:
        return Direct(network=ipaddress.ip_network(address), port=int(port))
    domain = host.removeprefix("*.").strip(".")
    if not re.fullmatch(r"\*|[a-z0-9_-]+(\.[a-z0-9_-]+)*", domain):
        shown = format_value(entry.rpartition("@")[2])  # without the login of a URL
        message = f"has {shown}, which is no host, domain or network"
        raise WrongFormError(message)
    return Direct(domain=domain, port=int(port) if colon else None)


PROXY_KEYS: Final[Mapping[str, SettingKey]] = {
    **{key: SettingKey(key.lower(), partial(parse_proxy, key), _WRITE) for key in ("HTTPS_PROXY", "HTTP_PROXY")},
    "NO_PROXY": SettingKey("no_proxy", parse_direct, _WRITE_HOSTS),
}
