"""The agent's HTTP endpoints: status, readiness, liveness and metrics, all of them read-only."""

from __future__ import annotations

from aiohttp import web

from conch_agent.loop import Agent
from conch_agent.metrics import CONTENT_TYPE
from conch_contract import AgentReport, names


def make_app(agent: Agent) -> web.Application:
    """Return the application with the endpoints of the contract.

    Args:
        agent: The agent whose state the endpoints serve.
    """

    async def serve_status(_: web.Request) -> web.Response:
        return web.Response(text=agent.report.to_json(), content_type="application/json")

    async def serve_ready(_: web.Request) -> web.Response:
        report = agent.report
        return web.Response(text=_describe_report(report), status=200 if report.ready else 503)

    async def serve_live(_: web.Request) -> web.Response:
        is_running = agent.is_running
        return web.Response(text="running\n" if is_running else "stuck\n", status=200 if is_running else 503)

    async def serve_metrics(_: web.Request) -> web.Response:
        return web.Response(body=agent.metrics.encode(), headers={"Content-Type": CONTENT_TYPE})

    app = web.Application()
    app.add_routes(
        [
            web.get(names.STATUS_PATH, serve_status),
            web.get(names.READY_PATH, serve_ready),
            web.get(names.LIVE_PATH, serve_live),
            web.get(names.METRICS_PATH, serve_metrics),
        ]
    )
    return app


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
