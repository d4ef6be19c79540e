"""Reads pages of pods over HTTP. A pod is the user's: what it sends is bounded in bytes, time and work.

The client is our own, and HTTP/1.0 (RFC 1945): one answer, without interim answers and without chunks. Clients of
HTTP/1.1 parse any number of both, before a limit on the body counts: one pod keeps the event loop busy with them. So
does the parser of headers in Python's library, which is that of e-mail: 16 KiB of nested parts take it 0.3 s. The pause
between two reads of a socket grows, so that packets of one byte cost no more than whole pages.
"""

import asyncio
import http.client
import re
import socket
from dataclasses import dataclass
from typing import Final, Self

from conch.bodies import TooLargeError

_LIMIT: Final = 1 << 20  # bytes; metrics are tens of kilobytes, a report of the agent is kilobytes
_HEAD_LIMIT: Final = 16 << 10  # bytes of status line and headers
_FIRST_PAUSE: Final = 0.001  # seconds after the first read of a socket; each further one is twice as long
_LONGEST_PAUSE: Final = 0.05  # seconds
_HEADERS: Final = 100
_DIGITS: Final = 18  # of a length: more bytes than a page may have
_END_OF_HEAD: Final = b"\r\n\r\n"
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")
_HEADER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\r\n\0]*)")  # RFC 9110, section 5

NOT_A_PAGE: Final = "has metrics that cannot be read"
METRICS_PATH: Final = "/metrics"


class PageError(Exception):
    """There is no page: why, as the rest of a sentence that begins with the pod."""


async def read_page(ip: str, port: int, path: str = METRICS_PATH, *, seconds: float) -> str:
    """Return a page of a pod, by default that of its metrics.

    Args:
        ip: Address of the pod.
        port: Port of the pod.
        path: Path of the page.
        seconds: Maximum duration, from the connection until the whole page is here.

    Raises:
        PageError: the pod does not answer, or not with a page.
    """
    try:
        async with asyncio.timeout(seconds):
            return (await _request(ip, port, path)).decode()
    except TooLargeError as error:
        raise PageError(f"has {error} of metrics") from error
    except UnicodeDecodeError as error:
        raise PageError(NOT_A_PAGE) from error
    except OSError as error:  # a TimeoutError too
        raise PageError(f"does not answer at port {port} ({type(error).__name__})") from error


async def _request(ip: str, port: int, path: str) -> bytes:
    """Send a request, and return the body of the answer.

    Raises:
        OSError: there is no connection, or it breaks.
        PageError: the answer is no page.
        TooLargeError: the answer is too large.
    """
    host, loop = f"[{ip}]" if ":" in ip else ip, asyncio.get_running_loop()
    request = f"GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\nUser-Agent: conch\r\n\r\n".encode()
    received, head = bytearray(), None
    most, pause = _HEAD_LIMIT + _LIMIT, _FIRST_PAUSE
    with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET) as connection:
        connection.settimeout(0)  # the event loop waits
        await loop.sock_connect(connection, (ip, port))
        await loop.sock_sendall(connection, request)
        while len(received) <= most and (piece := await loop.sock_recv(connection, _LIMIT)):
            received += piece
            head = head or _Head.read(received, path)
            if head and head.end is not None and head.end <= len(received):
                break
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
    if head is None or len(received) < (head.end or 0):
        raise PageError(f"ends its answer to {path} too early")
    body = bytes(received[head.size : head.end])
    if len(body) > _LIMIT:
        raise TooLargeError(_LIMIT)
    return body


@dataclass(frozen=True)
class _Head:
    """Status line and headers of an answer that has a page.

    Attributes:
        size: In bytes.
        end: Of the whole answer, in bytes; None: the connection ends with it.
    """

    size: int
    end: int | None

    @classmethod
    def read(cls, received: bytearray, path: str) -> Self | None:
        """Return the head of an answer; None: it is not whole yet.

        Raises:
            PageError: the answer is no page.
            TooLargeError: the answer declares that it is too large.
        """
        size = received.find(_END_OF_HEAD, 0, _HEAD_LIMIT) + len(_END_OF_HEAD)
        if size < len(_END_OF_HEAD):
            if len(received) > _HEAD_LIMIT:
                raise PageError(f"answers {path} with more than {_HEAD_LIMIT >> 10} KiB of headers")
            return None
        status, _, rest = bytes(received[:size]).partition(b"\r\n")
        code = _STATUS.match(status + b"\r")
        if code is None:
            raise PageError(f"does not answer {path} by HTTP")
        if int(code[1]) != http.client.OK:
            raise PageError(f"answers {path} with HTTP status {int(code[1])}")
        lines = rest.removesuffix(_END_OF_HEAD).split(b"\r\n") if rest != b"\r\n" else []
        headers = [_HEADER.fullmatch(line) for line in lines]
        if len(headers) > _HEADERS or None in headers:
            raise PageError(f"answers {path} with headers that cannot be read")
        fields = {(found[1].lower(), found[2].strip(b" \t")) for found in headers if found}
        lengths = [value for name, value in fields if name == b"content-length"]
        if len(lengths) > 1 or not all(map(bytes.isdigit, lengths)) or b"transfer-encoding" in dict(fields):
            raise PageError(f"answers {path} with headers that HTTP/1.0 does not have")
        length = lengths[0] if lengths else b""
        if len(length) > _DIGITS or int(length or 0) > _LIMIT:
            raise TooLargeError(_LIMIT)
        return cls(size, size + int(length) if length else None)
