"""The agent's program: it creates the folders and the control key, starts endpoints and loop, and ends on SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

import structlog
from aiohttp import web

from conch_agent.cache import keep_lease
from conch_agent.control import ensure_key
from conch_agent.loop import Agent
from conch_agent.server import make_app
from conch_agent.settings import Settings, parse_arguments
from conch_agent.triton import Triton


def main() -> None:
    """Run the agent of this pod."""
    _configure_logs()
    asyncio.run(_run(parse_arguments()))


async def _run(settings: Settings) -> None:
    for folder in (settings.repository, settings.downloads, settings.decrypted):
        folder.mkdir(parents=True, exist_ok=True)
    key = ensure_key(settings.control_key)
    triton = Triton(settings.triton_grpc, key)
    agent = Agent(settings, triton)
    runner = web.AppRunner(make_app(agent), access_log=None)
    await runner.setup()
    # After the control key: the kubelet starts Triton when /live answers.
    await web.TCPSite(runner, settings.host, settings.port).start()
    structlog.get_logger().info("started", port=settings.port, root=str(settings.root))
    loop = asyncio.create_task(agent.run())
    lease = asyncio.create_task(keep_lease(settings))
    lease.add_done_callback(lambda _: loop.cancel())  # the agent starts again, and lays the models out anew
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, loop.cancel)
    try:
        await loop
    except asyncio.CancelledError:
        structlog.get_logger().info("stopped")
    finally:
        lease.cancel()
        await runner.cleanup()
        await triton.close()


def _configure_logs() -> None:
    console = os.environ.get("CONCH_LOG") == "console"
    renderer = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stdout),
    )
