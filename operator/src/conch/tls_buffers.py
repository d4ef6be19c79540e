"""The size of the buffer that asyncio allocates for each TLS connection.

asyncio takes 256 KiB for each. The operator has up to 32 connections for calls and one for each kind that it watches: a
quarter of its memory in a burst of new services (measured with memray). An answer or an event has some ten KiB.
"""

from asyncio.sslproto import SSLProtocol
from typing import Final

_BYTES: Final = 32 << 10  # a TLS record has at most 16 KiB


def limit_tls_buffers() -> None:
    """Let new connections of this process have small buffers."""
    SSLProtocol.max_size = _BYTES
