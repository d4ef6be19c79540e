"""Requests for pieces to other pods."""

from __future__ import annotations

import asyncio
import secrets
from typing import Final

from conch_agent.peers.addresses import Address
from conch_agent.peers.piece import (
    BLOCK,
    MAC_HEADER,
    MAC_SIZE,
    NONCE_HEADER,
    STALL_SECONDS,
    Piece,
    is_equal,
    sign_content,
    sign_request,
)
from conch_agent.threads import run_in_thread

_CONNECT_SECONDS: Final = 1.0
_ANSWER_SECONDS: Final = 20.0  # until the answer begins: the pod may read the piece from the store first


class PeerError(Exception):
    """A pod does not answer, or not with the piece."""


async def request_piece(address: Address, piece: Piece, key: bytes, *, only_if_cached: bool) -> memoryview | None:
    """Return the bytes of a piece from another pod; None: it does not have them, which is only for `only_if_cached`.

    Args:
        address: Address of its agent.
        piece: The piece.
        key: The key of pods with the same Secret.
        only_if_cached: True: the pod does not read the piece from the store for this request.

    Raises:
        PeerError: There is no answer, or not the piece.
    """
    nonce = secrets.token_hex(16)
    headers = {
        "Host": address.text,
        NONCE_HEADER: nonce,
        MAC_HEADER: sign_request(key, piece, address.text, nonce),
        **({"Cache-Control": "only-if-cached"} if only_if_cached else {}),
    }
    lines = [f"GET {piece.target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(address.host, address.port, limit=BLOCK)
        try:
            writer.write("\r\n".join([*lines, "", ""]).encode())
            async with asyncio.timeout(_ANSWER_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            body = await _read_body(reader, piece) if head.startswith(b"HTTP/1.1 200 ") else None
        finally:
            writer.close()
    except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError) as error:
        raise PeerError(f"{type(error).__name__}: {error}") from error
    if body is None:
        if head.startswith(b"HTTP/1.1 404 "):
            raise PeerError("it does not fetch this content")
        if only_if_cached and head.startswith(b"HTTP/1.1 504 "):
            return None
        raise PeerError(head.partition(b"\r\n")[0].decode(errors="replace")[:200])
    content, mac = body[:-MAC_SIZE], body[-MAC_SIZE:]
    if not is_equal(await run_in_thread(sign_content, key, nonce, content), bytes(mac)):
        raise PeerError("it has sent bytes that no pod with the storage Secret has signed")
    return content


async def _read_body(reader: asyncio.StreamReader, piece: Piece) -> memoryview:
    """Return the piece and its MAC."""
    left, blocks = piece.end - piece.start + MAC_SIZE, list[bytes]()
    while left:
        async with asyncio.timeout(STALL_SECONDS):
            block = await reader.readexactly(min(left, BLOCK))
        blocks.append(block)
        left -= len(block)
    return memoryview(b"".join(blocks))
