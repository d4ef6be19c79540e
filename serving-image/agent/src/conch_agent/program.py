"""The agent after its start: its loop, until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

import structlog

from conch_agent.cache import keep_lease
from conch_agent.loop import Agent
from conch_agent.server import Endpoints
from conch_agent.settings import Settings
from conch_agent.triton import Triton


async def run(settings: Settings, key: str, endpoints: Endpoints) -> None:
    """Run the agent until SIGTERM.

    Args:
        settings: Its settings.
        key: The control key.
        endpoints: Its endpoints, which answer already.
    """
    _configure_logs()
    triton = Triton(settings.triton_grpc, key)
    agent = endpoints.agent = Agent(settings, triton)
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
