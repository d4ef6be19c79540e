"""Addresses that are never asked on a user's behalf: a cloud's metadata server has credentials of the node."""

import ipaddress
from typing import Final

# Metadata servers of clouds with an address that is not link-local: AWS over IPv6, Alibaba, Azure, Oracle.
_METADATA: Final = frozenset(
    ipaddress.ip_address(address)
    for address in ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052


def check_address(host: str) -> None:
    """Refuse a link-local address, or one of a cloud's metadata server, in whatever way it is embedded.

    Raises:
        ValueError: it is one.

    >>> check_address("10.0.0.1")
    >>> check_address("64:ff9b::a9fe:a9fe")
    Traceback (most recent call last):
    ValueError: 64:ff9b::a9fe:a9fe is a link-local address or a cloud's metadata server, which is never asked
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return  # a name; the resolver checks what it stands for
    if any(each.is_link_local or each in _METADATA for each in _meant(address)):
        raise ValueError(f"{host} is a link-local address or a cloud's metadata server, which is never asked")


def _meant(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Return an address, and those that it embeds: IPv4-mapped, 6to4, NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    embedded = [address.ipv4_mapped, address.sixtofour]
    if address in _NAT64:
        embedded.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [address, *(each for each in embedded if each is not None)]
