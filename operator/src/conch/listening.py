"""Serves HTTP on a port, with a bound on the connections and on the time until their first request.

aiohttp has neither bound, and a TLS connection of asyncio's holds 256 KiB from its first byte on.
"""

import asyncio
import contextlib
import socket
import ssl
from collections import OrderedDict
from typing import Final, Self

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import Counter

CONNECTIONS: Final = 256  # open at a time
FIRST_SECONDS: Final = 10.0  # from the connection to its first whole request
HANDSHAKE_SECONDS: Final = 5.0
_KEEP_SECONDS: Final = 75.0  # between two requests
_SHUTDOWN_SECONDS: Final = 3.0  # that requests get at the end of the process
_ACCEPT_RETRY_SECONDS: Final = 1.0  # when the process has no file descriptor left
_BACKLOG: Final = 128

_ended = Counter(
    "conch_connections_ended", "Connections that were closed for a new one or without a request.", ["port"]
)
_log = structlog.get_logger("conch")


class Listener:
    """One port. At the maximum of connections, a new one replaces the oldest that is not trusted."""

    def __init__(
        self,
        app: web.Application,
        port: int,
        context: ssl.SSLContext | None = None,
        *,
        connections: int = CONNECTIONS,
        first_seconds: float = FIRST_SECONDS,
    ) -> None:
        """Prepare it.

        Args:
            app: the application. It calls `trust` with requests whose connections have to be kept.
            port: on all addresses.
            context: of TLS; None: plain HTTP.
            connections: the largest number of open connections.
            first_seconds: after which a connection without a whole request is closed.
        """
        app.middlewares.insert(0, _note_request)
        self._runner = web.AppRunner(
            app, access_log=None, keepalive_timeout=_KEEP_SECONDS, shutdown_timeout=_SHUTDOWN_SECONDS
        )
        self._port = port
        self._context = context
        self._most = connections
        self._first_seconds = first_seconds
        self._connections: OrderedDict[asyncio.Task[None], _Connection] = OrderedDict()  # the oldest first
        self._accepting: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        listener = _listen(self._port)
        self._accepting = asyncio.create_task(self._accept(listener))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
        await self._runner.cleanup()
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                await asyncio.sleep(0)  # connections that are there already are accepted without a turn of the loop
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError as error:
                    _log.warning("connection not accepted", port=self._port, error=str(error))
                    await asyncio.sleep(_ACCEPT_RETRY_SECONDS)
                    continue
                if not self._free_one():
                    _ended.labels(self._port).inc()
                    connection.close()
                    continue
                served = _Connection(self._runner)
                task = asyncio.create_task(self._serve(connection, served))
                self._connections[task] = served
                task.add_done_callback(self._forget)

    def _free_one(self) -> bool:
        """End the oldest connection that is not trusted if all are taken; return whether there is a free one."""
        if len(self._connections) < self._most:
            return True
        oldest = next((task for task, each in self._connections.items() if not each.is_trusted), None)
        if oldest is None:
            return False
        oldest.cancel()
        self._forget(oldest)
        return True

    async def _serve(self, connection: socket.socket, served: "_Connection") -> None:
        """Serve a connection until it ends; end it if its first request does not come in time."""
        seconds = HANDSHAKE_SECONDS if self._context else None
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: served, connection, ssl=self._context, ssl_handshake_timeout=seconds
            )
        except (OSError, TimeoutError):  # an SSLError is an OSError
            connection.close()
            return
        except asyncio.CancelledError:
            connection.close()
            raise
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._first_seconds):
                    await served.ended.wait()
            if served.has_request:
                await served.ended.wait()
        finally:
            if not served.ended.is_set():
                _ended.labels(self._port).inc()
                transport.abort()

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._connections.pop(task, None)


def trust(request: web.Request) -> None:
    """Keep the connection of a request, also at the maximum of connections."""
    if (connection := _connection_of(request)) is not None:
        connection.is_trusted = True


@web.middleware
async def _note_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Note that a connection has brought a request."""
    if (connection := _connection_of(request)) is not None:
        connection.has_request = True
    return await handler(request)


def _connection_of(request: web.Request) -> "_Connection | None":
    connection = request.transport.get_protocol() if request.transport is not None else None
    return connection if isinstance(connection, _Connection) else None


class _Connection(asyncio.Protocol):
    """aiohttp's handler of one connection, and whether the connection has ended."""

    def __init__(self, runner: web.AppRunner) -> None:
        if runner.server is None:
            raise RuntimeError("the runner is not set up")
        self.handler = runner.server()
        self.ended = asyncio.Event()
        self.has_request = False
        self.is_trusted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.handler.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.handler.data_received(data)

    def eof_received(self) -> None:
        self.handler.eof_received()

    def pause_writing(self) -> None:
        self.handler.pause_writing()

    def resume_writing(self) -> None:
        self.handler.resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.ended.set()
        self.handler.connection_lost(exc)


def _listen(port: int) -> socket.socket:
    """Return a socket that listens on all addresses, of IPv6 too where the machine has it."""
    try:
        made = socket.create_server(("", port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True)
    except (OSError, ValueError):  # IPv6 is turned off
        made = socket.create_server(("", port), backlog=_BACKLOG)
    made.settimeout(0)
    return made
