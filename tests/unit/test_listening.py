"""A port that many connect to: the oldest connections are closed for new ones, but for those that are trusted."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from conch.listening import Listener, trust
from tests.support.ports import free_port

SECONDS = 10

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def port() -> int:
    return free_port()


def app() -> web.Application:
    """An application that trusts the clients of /."""

    async def answer(request: web.Request) -> web.Response:
        trust(request)
        return web.Response(text="ok")

    async def answer_public(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=401)

    made = web.Application()
    made.add_routes([web.get("/", answer), web.get("/public", answer_public), web.get("/secret", refuse)])
    return made


@pytest.fixture
async def listener(port: int) -> AsyncIterator[Listener]:
    """A listener that takes three connections, and waits long for a request."""
    async with Listener(app(), port, connections=3, first_seconds=SECONDS) as listener:
        yield listener


async def connect(port: int) -> Connection:
    return await asyncio.open_connection("127.0.0.1", port)


async def get_line(connection: Connection, path: str = "/") -> bytes:
    """Send a request; return the first line of the answer, which is empty where the connection has ended."""
    reader, writer = connection
    async with asyncio.timeout(SECONDS):
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            line = await reader.readline()
            while line and (await reader.readline()).strip():
                pass
            if line.startswith(b"HTTP/1.1 200"):
                await reader.readexactly(2)
        except ConnectionError:
            return b""
        return line


async def ended(connection: Connection) -> bool:
    """Wait for the end of a connection."""
    try:
        async with asyncio.timeout(SECONDS):
            return await connection[0].read() == b""
    except ConnectionError:
        return True


@pytest.mark.usefixtures("listener")
@pytest.mark.parametrize("path", ["", "/public", "/secret"], ids=["silent", "answered", "refused"])
async def test_old_connections_are_closed_for_new_ones(port: int, path: str) -> None:
    there = [await connect(port) for _ in range(3)]
    for connection in there if path else ():
        assert (await get_line(connection, path)).startswith(b"HTTP/1.1")
    for number in range(2):
        assert (await get_line(await connect(port))).startswith(b"HTTP/1.1 200")
        assert await ended(there[number]), "the oldest one ends first"


@pytest.mark.usefixtures("listener")
async def test_a_trusted_connection_stays_and_a_new_one_is_closed_when_all_are_trusted(port: int) -> None:
    known = [await connect(port) for _ in range(3)]
    for connection in known:
        assert (await get_line(connection)).startswith(b"HTTP/1.1 200")
    assert await get_line(await connect(port)) == b""
    for connection in known:
        assert (await get_line(connection)).startswith(b"HTTP/1.1 200")


async def test_a_connection_without_a_whole_request_ends(port: int) -> None:
    async with Listener(app(), port, first_seconds=0.3):
        known, silent, slow = [await connect(port) for _ in range(3)]
        assert (await get_line(known, "/public")).startswith(b"HTTP/1.1 200")
        slow[1].write(b"GET / HTTP/1.1\r\nHost: a\r\n")
        assert await ended(silent)
        assert await ended(slow)
        assert (await get_line(known, "/public")).startswith(b"HTTP/1.1 200")
