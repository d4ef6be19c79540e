"""Addresses to which Conch never connects for a user: a cloud's metadata server has credentials of the node."""

import ipaddress
from typing import Final

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
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return
    if any(variant.is_link_local or variant in _METADATA for variant in _with_embedded(address)):
        raise ValueError(f"{host} is a link-local address or a cloud's metadata server, which Conch never contacts")


def _with_embedded(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Return an address and the IPv4 addresses that it embeds: IPv4-mapped, 6to4, NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    embedded = [address.ipv4_mapped, address.sixtofour]
    if address in _NAT64:
        embedded.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [address, *(inner for inner in embedded if inner is not None)]
