"""Ports of the loopback for the processes that tests start.

A port that the kernel picked, and that was given back, is soon in use again: by a connection that goes out, or by
another test. So ours lie below those that the kernel gives out, and each worker has a range of its own.
"""

from __future__ import annotations

import itertools
import os
import random
import socket
from pathlib import Path
from typing import Final

_FIRST: Final = 10_000
_COUNT: Final = 2_000  # of a worker
_KERNEL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


def _ports() -> itertools.cycle[int]:
    """Return the ports of this process, from a random one on, so that another run beside this one takes others."""
    ranges = (int(_KERNEL.read_text().split()[0]) - _FIRST) // _COUNT
    worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    mine = int(worker) % ranges if worker else random.randrange(ranges)  # noqa: S311  not a secret
    start, first = random.randrange(_COUNT), _FIRST + mine * _COUNT  # noqa: S311
    return itertools.cycle(first + (start + index) % _COUNT for index in range(_COUNT))


_mine: Final = _ports()


def free_port() -> int:
    """Return a port of the loopback on which no process listens, and that no other test is given."""
    for port in itertools.islice(_mine, _COUNT):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what has just ended there does not matter
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"all ports of this worker from {_FIRST} on are in use")


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server accepts connections at this address; an answer is awaited for a second."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0
