"""Web applications of tests on loopback, in a thread: the code under test has an event loop of its own."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web


@contextmanager
def serve_apps(*apps: web.Application, context: ssl.SSLContext | None = None) -> Iterator[list[str]]:
    """Serve applications, each on a port of its own; yield their URLs, which have no slash at their end."""
    urls: list[str] = []
    loop, is_ready = asyncio.new_event_loop(), threading.Event()
    runners = [web.AppRunner(app, shutdown_timeout=1) for app in apps]
    scheme = "https" if context else "http"

    async def start() -> None:
        for runner in runners:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
            urls.append(f"{scheme}://127.0.0.1:{runner.addresses[0][1]}")
        is_ready.set()

    def run() -> None:
        loop.run_until_complete(start())
        loop.run_forever()
        for runner in runners:
            loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    if not is_ready.wait(10):
        raise TimeoutError("the applications do not start")
    try:
        yield urls
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
