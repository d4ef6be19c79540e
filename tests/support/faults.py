"""A proxy before the API server at which requests and watches go wrong, as they do in real clusters.

It passes everything on with the credentials of a kubeconfig, and listens on loopback only.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import ssl
import tempfile
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import yaml
from aiohttp import web

Lines = AsyncIterator[bytes]
Mangle = Callable[["Faults", Lines], Lines]

# Headers of one hop, or set by the proxy itself: RFC 9110, 7.6.1.
_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding", "host"})
_CONFLICT: Final = 409
_FIRST_WATCHES: Final = 16  # about one of each kind
_WRITES_BEFORE_ABSENCE: Final = 12  # of the 30 or so of a rollout
LATE: Final = 4200  # deletions; the operator remembers 4,096
LOST: Final = 0  # the request is carried out, and the connection ends without an answer


class Faults:
    """The proxy. What goes wrong can be changed at any time; by default nothing does."""

    def __init__(self, kubeconfig: Path, directory: Path, seed: int = 0, client: str = "") -> None:
        """Prepare it.

        Args:
            kubeconfig: of the API server, with a client certificate.
            directory: for `kubeconfig`, with which a client goes through the proxy.
            seed: of the random choices.
            client: a word that is added to the user agent of all requests, which distinguishes clients in an audit log.
        """
        self.share = 0.0  # of requests, watches apart, that fail
        self.codes: tuple[int, ...] = ()  # with which they fail; 0: they are carried out, and have no answer
        self.mangle: Mangle | None = None  # what becomes of a watch's lines
        self.absence = 0.0  # seconds without an API server, once, which begin with a write; 0: it is always there
        self.on_write: Callable[[], object] | None = None  # called when a write is done and has no answer yet
        self.writes = 0  # that clients have begun, without those of elections and without reviews of rights
        self.faults: Counter[str] = Counter()  # that have happened, by what they are
        self.seed = seed
        self.random = random.Random(seed)  # noqa: S311  a test's choices
        self.kubeconfig = directory / f"faulty{client}.kubeconfig"
        self.client = client
        self._config = yaml.safe_load(kubeconfig.read_text())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._up = threading.Event()
        self._away = False
        self._connections: set[asyncio.Transport] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._up.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._stop.set)
        self._thread.join(10)

    def _call(self, function: Callable[[], object]) -> None:
        """Call a function in the proxy's thread."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(function)

    def _leave(self, seconds: float) -> None:
        """End all connections, and refuse new ones for some seconds."""
        self._away = True
        for connection in self._connections:
            connection.abort()

        def come_back() -> None:
            self._away = False

        asyncio.get_running_loop().call_later(seconds, come_back)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        [cluster], [user] = self._config["clusters"], self._config["users"]
        address = cluster["cluster"]["server"]
        connector = aiohttp.TCPConnector(ssl=_context(cluster["cluster"], user["user"]), limit=0)
        async with aiohttp.ClientSession(address, connector=connector, auto_decompress=False) as session:

            async def handle(request: web.BaseRequest) -> web.StreamResponse:
                connection = request.transport
                assert connection is not None
                if self._away:
                    self.faults["away"] += 1
                    connection.abort()
                    return web.Response()
                self._connections.add(connection)
                self.writes += _is_write(request)
                if self.absence and self.writes == _WRITES_BEFORE_ABSENCE:
                    seconds, self.absence = self.absence, 0.0
                    self._leave(seconds)
                try:
                    return await self._handle(session, request)
                finally:
                    self._connections.discard(connection)

            server = web.Server(handle)
            runner = web.ServerRunner(server, access_log=None, shutdown_timeout=1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            [port] = [each[1] for each in runner.addresses]
            cluster["cluster"] = {"server": f"http://127.0.0.1:{port}"}
            self.kubeconfig.write_text(yaml.safe_dump(self._config | {"users": [{"name": user["name"], "user": {}}]}))
            self._up.set()
            await self._stop.wait()
            await runner.cleanup()

    async def _handle(self, session: aiohttp.ClientSession, request: web.BaseRequest) -> web.StreamResponse:
        is_watch = request.query.get("watch") in {"true", "1"}
        code = None if is_watch else self._choose(request)
        if code is not None and code != LOST:
            return _failure(code)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        if self.client:
            headers["User-Agent"] = f"{headers.get('User-Agent', '')} {self.client}"
        async with session.request(
            request.method,
            request.rel_url,
            headers=headers,
            data=await request.read(),
            timeout=aiohttp.ClientTimeout(total=None),
        ) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            if not is_watch or answer.status != 200:
                body = await answer.read()
                if self.on_write is not None and _is_write(request):
                    self.on_write()
                if code == LOST and request.transport is not None:
                    request.transport.abort()
                return web.Response(status=answer.status, headers=kept, body=body)
            response = web.StreamResponse(headers=kept)
            await response.prepare(request)
            lines = _lines(answer.content)
            async for line in self.mangle(self, lines) if self.mangle is not None else lines:
                await response.write(line + b"\n")
            return response

    def _choose(self, request: web.BaseRequest) -> int | None:
        """Return the status code with which a request fails; None: it does not."""
        if not self.codes or self.random.random() >= self.share:
            return None
        code = self.random.choice(self.codes)
        if code == _CONFLICT and request.method == "GET":
            return None
        self.faults[f"{request.method} {code or 'lost'}"] += 1
        return code


async def doubled(faults: Faults, lines: Lines) -> Lines:
    """Every event comes twice."""
    async for line in lines:
        faults.faults["doubled"] += 1
        yield line
        yield line


async def reordered(faults: Faults, lines: Lines) -> Lines:
    """Of each two events that come within a moment, the second comes first."""
    queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def fill() -> None:
        try:
            async for line in lines:
                await queue.put(line)
        finally:
            queue.put_nowait(None)

    task = asyncio.create_task(fill())
    try:
        while (first := await queue.get()) is not None:
            try:
                second = await asyncio.wait_for(queue.get(), 0.3)
            except TimeoutError:
                yield first
                continue
            if second is None:
                yield first
                return
            faults.faults["reordered"] += 1
            yield second
            yield first
    finally:
        task.cancel()


async def repeated_late(faults: Faults, lines: Lines) -> Lines:
    """The last event before the deletion of a child comes once more, after thousands of other deletions."""
    latest: dict[str, bytes] = {}
    tombs: deque[tuple[int, str]] = deque()
    deletions = 0
    async for line in lines:
        yield line
        event = json.loads(line)
        meta = event["object"].get("metadata", {})
        if event["type"] != "DELETED":
            latest[meta.get("uid", "")] = line
            continue
        deletions += 1
        tombs.append((deletions, meta["uid"]))
        while tombs and tombs[0][0] + LATE <= deletions:
            last = latest.pop(tombs.popleft()[1], b"")
            if b'"ownerReferences"' in last:  # a child
                faults.faults["repeated late"] += 1
                yield last


def _ending(name: str, last: Callable[[bytes], bytes]) -> Mangle:
    """Return a fault: in place of one event in four comes something else, if anything, and the watch ends."""

    async def mangle(faults: Faults, lines: Lines) -> Lines:
        async for line in lines:
            if faults.random.random() < 0.25:
                faults.faults[name] += 1
                if instead := last(line):
                    yield instead
                return
            yield line

    return mangle


_EXPIRED = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
cut = _ending("cut", lambda _: b"")  # the connection ends before the event
expired = _ending("expired", lambda _: json.dumps({"type": "ERROR", "object": _EXPIRED}).encode())
broken = _ending("broken", lambda line: line[: len(line) // 2])


async def half_open(faults: Faults, lines: Lines) -> Lines:
    """From its first event on nothing comes over any of the first watches, and the connections do not end."""
    is_first = faults.faults["half-open"] < _FIRST_WATCHES
    faults.faults["half-open"] += is_first
    async for line in lines:
        if is_first:
            await asyncio.Event().wait()
        yield line


async def anything(faults: Faults, lines: Lines) -> Lines:
    """Each watch meets one of these faults."""
    async for line in faults.random.choice([doubled, reordered, cut, expired, broken])(faults, lines):
        yield line


def _is_write(request: web.BaseRequest) -> bool:
    """Whether a request writes an object other than an access review or a Lease."""
    return request.method != "GET" and not {"authorization.k8s.io", "leases"} & set(request.path.split("/"))


def _failure(code: int) -> web.Response:
    """Return a failure as the API server writes it."""
    reasons = {409: "Conflict", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable"}
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reasons[code]}
    details = {"retryAfterSeconds": 1} if code == 429 else {}
    return web.json_response(status | {"message": "a fault of the test", "details": details}, status=code)


def _context(cluster: dict[str, Any], user: dict[str, Any]) -> ssl.SSLContext:
    """Return how to speak to the API server with the certificates of a kubeconfig."""
    context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    with tempfile.NamedTemporaryFile(prefix="conch-faults-") as file:  # ssl reads certificates from files only
        pair = [base64.b64decode(user[f"client-{part}-data"]) for part in ("certificate", "key")]
        file.write(b"\n".join(pair))
        file.flush()
        context.load_cert_chain(file.name)
    return context


async def _lines(content: aiohttp.StreamReader) -> Lines:
    line = bytearray()
    async for chunk in content.iter_any():
        *whole, rest = chunk.split(b"\n")
        for part in whole:
            yield bytes(line + part)
            line.clear()
        line += rest
