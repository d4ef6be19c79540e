"""The memory of TLS connections."""

from __future__ import annotations

import asyncio
import ssl
import tracemalloc
from asyncio.sslproto import SSLProtocol
from datetime import UTC, datetime, timedelta

import pytest

from conch.metrics.certificate import issue
from conch.tls_buffers import limit_tls_buffers

ANSWER = bytes(range(256)) * 4096  # many times a buffer
CONNECTIONS = 8


async def test_a_connection_takes_little_memory_and_carries_answers_of_any_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SSLProtocol, "max_size", SSLProtocol.max_size)  # restored afterwards
    serving, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    certificate = issue("api", datetime.now(UTC), timedelta(days=1))
    certificate.serve(serving)
    trusting.load_verify_locations(cadata=certificate.pem.decode())

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(ANSWER)
        await writer.drain()
        writer.close()

    async def measure() -> float:
        """Return the bytes of a connection, of which both ends are in this process."""
        async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=serving) as server:
            port = server.sockets[0].getsockname()[1]
            tracemalloc.start()
            ends = [
                await asyncio.open_connection("127.0.0.1", port, ssl=trusting, server_hostname="api")
                for _ in range(CONNECTIONS)
            ]
            taken = tracemalloc.get_traced_memory()[0] / CONNECTIONS
            tracemalloc.stop()
            for reader, writer in ends:
                writer.write(b"request\n")
                assert await reader.read() == ANSWER
                writer.close()
            return taken

    before = await measure()
    limit_tls_buffers()
    assert before - await measure() > 400 << 10, "two ends of 256 KiB have 32 each"
