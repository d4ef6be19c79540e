"""The addresses of a service's pods, and which of them reads a piece from the store."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from conch_agent.peers.piece import Piece
from conch_agent.threads import run_in_thread

_FRESH: Final = 5.0  # seconds: meanwhile pods start and end
_LONGEST: Final = 1.0  # seconds for an answer of DNS; one that comes later is used then


@dataclass(frozen=True)
class Address:
    """The address of an agent; `is_own`: of this one."""

    host: str
    port: int
    is_own: bool = False

    @property
    def text(self) -> str:
        """`host:port`, as both ends know it."""
        return format_address(self.host, self.port)


def format_address(host: str, port: int) -> str:
    """Return `host:port`.

    Args:
        host: An IPv4 or IPv6 address.
        port: The port.
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Addresses:
    """The pods of the service by DNS: a headless Service has an address for each, also before it is ready."""

    def __init__(self, names: Sequence[str], port: int) -> None:
        """Create the addresses.

        Args:
            names: Names in DNS, or addresses; each with a port behind a colon, unless it is the own one.
            port: The port of this agent.
        """
        self._names = [_split(name, port) for name in names]
        self._port = port
        self._known: tuple[Address, ...] = ()
        self._fresh_until = 0.0
        self._began = 0.0
        self._refresh: asyncio.Task[None] | None = None

    async def list(self) -> tuple[Address, ...]:
        """Return the addresses; none without an answer of DNS, and those of before while there is none in time."""
        now = time.monotonic()
        if now >= self._fresh_until and (self._refresh is None or self._refresh.done()):
            self._began, self._refresh = now, asyncio.create_task(self._read())
        if self._refresh:
            await asyncio.wait([self._refresh], timeout=self._began + _LONGEST - now)
        return self._known

    async def _read(self) -> None:
        self._known = await run_in_thread(self._resolve)
        self._fresh_until = time.monotonic() + _FRESH

    def _resolve(self) -> tuple[Address, ...]:
        found = dict[tuple[str, int], Address]()
        for name, port in self._names:
            with suppress(OSError):
                for family, _, _, _, target in socket.getaddrinfo(name, port, type=socket.SOCK_DGRAM):
                    host = str(target[0])
                    is_own = port == self._port and _is_own(family, host)
                    found[host, port] = Address(host, port, is_own)
        return tuple(found.values())


def rank(addresses: Iterable[Address], piece: Piece) -> list[Address]:
    """Return addresses in an order that all pods agree on, the one that reads the piece from the store first.

    Highest random weight (Thaler and Ravishankar, 1998): a pod that starts or ends moves only its own pieces.

    Args:
        addresses: The addresses.
        piece: The piece.

    >>> rank([Address("10.0.0.1", 80), Address("10.0.0.2", 80)], Piece("s", "a", "b", 9, 0))[0].host
    '10.0.0.1'
    """
    return sorted(addresses, key=lambda each: hashlib.blake2b(f"{each.text}\0{piece.target}".encode()).digest())


def _is_own(family: int, host: str) -> bool:
    """Return True for an address of this pod: packets to it leave from the same one. This sends none."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))
        except OSError:
            return False
        return str(probe.getsockname()[0]) == host


def _split(name: str, port: int) -> tuple[str, int]:
    """Return the host and the port of a name.

    >>> [_split(name, 80) for name in ("a.b.svc", "127.0.0.1:81", "[fd00::1]", "[fd00::1]:81")]
    [('a.b.svc', 80), ('127.0.0.1', 81), ('fd00::1', 80), ('fd00::1', 81)]
    """
    parts = urlsplit(f"//{name}")
    return parts.hostname or "", parts.port or port
