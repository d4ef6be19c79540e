"""The agent's HTTP endpoints: status, readiness, liveness and metrics, all of them read-only.

They answer from the start, before the agent has imported its libraries: the kubelet starts Triton when the agent is
live. A web framework takes a third of the time of all imports, so four GET requests are answered without one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, closing, suppress
from http import HTTPStatus
from typing import Final, Protocol

from conch_contract import AgentReport, names

_SECONDS: Final = 5.0  # for a request, and for its answer
_LONGEST: Final = 16 * 1024  # bytes of a request, of which there may be thousands at once
_TEXT: Final = "text/plain; charset=utf-8"
_METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"  # Prometheus' text format


class Reporter(Protocol):
    """What the endpoints answer from."""

    @property
    def is_running(self) -> bool:
        """True if the event loop is not stuck."""

    @property
    def report(self) -> AgentReport:
        """The report of the pod."""

    @property
    def metrics(self) -> str:
        """The page of metrics."""

    @property
    def peers(self) -> PieceServer | None:
        """What answers requests of other pods; None: there are none."""


class PieceServer(Protocol):
    """What answers requests of other pods of the service."""

    async def answer(self, target: str, headers: Mapping[str, str], writer: asyncio.StreamWriter) -> None:
        """Answer a request.

        Args:
            target: The target of the request.
            headers: Its headers by name in lower case.
            writer: The connection.

        Raises:
            OSError: The connection is lost.
            TimeoutError: The other pod does not take the answer.
        """


class Endpoints:
    """The endpoints of the contract.

    Attributes:
        agent: The agent; None while it is imported: it is live, and not ready.
    """

    def __init__(self) -> None:
        self.agent: Reporter | None = None

    @asynccontextmanager
    async def serve(self, host: str | None, port: int) -> AsyncGenerator[None, None]:
        """Answer while the block is active.

        Args:
            host: The address; None: all.
            port: The port.
        """
        server = await asyncio.start_server(self._answer, host, port, limit=_LONGEST)
        try:
            yield
        finally:
            server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the one request of a connection."""
        with closing(writer), suppress(OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_SECONDS):
                line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode(errors="replace").split("\r\n")
            peers = self.agent.peers if self.agent else None
            if peers and line.startswith(f"GET {names.PIECES_PATH}/"):
                pairs = (each.partition(":") for each in lines)
                headers = {name.lower(): value.strip() for name, _, value in pairs}
                await peers.answer(line.split(" ")[1], headers, writer)
            else:
                async with asyncio.timeout(_SECONDS):
                    writer.write(self.answer(line))
                    await writer.drain()

    def answer(self, line: str) -> bytes:
        """Return the answer to a request.

        Args:
            line: Its first line.

        >>> [Endpoints().answer(f"GET /{path} HTTP/1.1").split(b" ")[1] for path in ("live", "ready", "else")]
        [b'200', b'503', b'404']
        """
        status, kind, text = self._build_page(line)
        body = text.encode()
        head = f"HTTP/1.1 {status} {status.phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        return f"{head}Connection: close\r\n\r\n".encode() + body

    def _build_page(self, line: str) -> tuple[HTTPStatus, str, str]:
        """Return status, content type and text of an answer."""
        method, _, rest = line.partition(" ")
        path, agent = rest.partition(" ")[0].partition("?")[0], self.agent
        if path not in {names.STATUS_PATH, names.READY_PATH, names.LIVE_PATH, names.METRICS_PATH}:
            return HTTPStatus.NOT_FOUND, _TEXT, "not found\n"
        if method != "GET":
            return HTTPStatus.METHOD_NOT_ALLOWED, _TEXT, "GET alone is allowed\n"
        if path == names.LIVE_PATH:
            is_running = agent is None or agent.is_running
            status = HTTPStatus.OK if is_running else HTTPStatus.SERVICE_UNAVAILABLE
            return status, _TEXT, "running\n" if is_running else "stuck\n"
        if agent is None:
            return HTTPStatus.SERVICE_UNAVAILABLE, _TEXT, "starting\n"
        return _build_agent_page(agent, path)


def _build_agent_page(agent: Reporter, path: str) -> tuple[HTTPStatus, str, str]:
    """Return status, content type and text of an answer that depends on the agent."""
    if path == names.METRICS_PATH:
        return HTTPStatus.OK, _METRICS, agent.metrics
    report = agent.report
    if path == names.STATUS_PATH:
        return HTTPStatus.OK, "application/json; charset=utf-8", report.to_json()
    status = HTTPStatus.OK if report.ready else HTTPStatus.SERVICE_UNAVAILABLE
    return status, _TEXT, _describe_report(report)


def _describe_report(report: AgentReport) -> str:
    """Return the report as text, a line for each model."""
    if report.ready:
        return "ready\n"
    lines = [f"{report.reason}: {report.message}"] if report.reason else []
    lines += (
        [f"serves revision {report.revision}, which is not the one that is assigned to it"] if report.has_loaded else []
    )
    for model in report.models:
        failure = f" {model.reason}: {model.message}" if model.reason else ""
        lines.append(f"{model.name}: {model.state}{failure}")
    return "\n".join(lines) + "\n"
