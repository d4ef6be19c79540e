"""Addresses to which Conch never connects for a user: a cloud's metadata server has credentials of the node."""

import ipaddress
import socket
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Metadata servers of clouds with an address that is not link-local: AWS over IPv6, Alibaba, Azure, Oracle.
_METADATA: Final = frozenset(
    ipaddress.ip_address(address)
    for address in ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052


def check_address(host: str) -> None:
    """Refuse a link-local address, or one of a cloud's metadata server, also embedded in an IPv6 address.

    Args:
        host: An address, or a name. A name passes: the resolver checks its addresses.

    Raises:
        ValueError: The address is refused.

    >>> check_address("10.0.0.1")
    >>> check_address("64:ff9b::a9fe:a9fe")
    Traceback (most recent call last):
    ValueError: 64:ff9b::a9fe:a9fe is a link-local address or a cloud's metadata server, which Conch never contacts
    """
    if is_forbidden(parse_address(host)):
        raise ValueError(f"{host} is a link-local address or a cloud's metadata server, which Conch never contacts")


def parse_address(host: str) -> Address | None:
    """Return a host as an address; None: it is a name.

    Args:
        host: The host. Systems take IPv4 addresses in short forms, too: `127.1`, `0x7f000001`, `2130706433`.

    >>> parse_address("127.1"), parse_address("[::1]"), parse_address("fe80::1%eth0"), parse_address("store.example")
    (IPv4Address('127.0.0.1'), IPv6Address('::1'), IPv6Address('fe80::1'), None)
    """
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


def is_forbidden(address: Address | None) -> bool:
    """Return True for a link-local address, or one of a cloud's metadata server.

    Args:
        address: The address; None: a name, which is not forbidden.
    """
    return any(each.is_link_local or each in _METADATA for each in _with_embedded(address))


def is_loopback(address: Address | None) -> bool:
    """Return True for an address of the machine itself.

    Args:
        address: The address; None: a name, which has none yet.

    >>> [is_loopback(parse_address(host)) for host in ("127.0.0.2", "0.0.0.0", "::ffff:127.0.0.1", "10.0.0.1")]
    [True, True, True, False]
    """
    return any(each.is_loopback or each.is_unspecified for each in _with_embedded(address))


def _with_embedded(address: Address | None) -> list[Address]:
    """Return an address and the IPv4 addresses that it embeds: IPv4-mapped, 6to4, NAT64."""
    if address is None:
        return []
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    embedded = [address.ipv4_mapped, address.sixtofour]
    if address in _NAT64:
        embedded.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [address, *(inner for inner in embedded if inner is not None)]
