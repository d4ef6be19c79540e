"""What a pod tells: three read-only answers over HTTP. Nothing here can change anything."""

from __future__ import annotations

from aiohttp import web

from conch_agent.loop import Agent
from conch_contract import AgentReport, names


def make_app(agent: Agent) -> web.Application:
    """Return the endpoints of the contract."""

    async def status(_: web.Request) -> web.Response:
        return web.Response(text=agent.report.to_json(), content_type="application/json")

    async def ready(_: web.Request) -> web.Response:
        report = agent.report
        return web.Response(text=_why(report), status=200 if report.ready else 503)

    async def live(_: web.Request) -> web.Response:
        return web.Response(text="turning\n" if agent.alive else "stuck\n", status=200 if agent.alive else 503)

    app = web.Application()
    app.add_routes(
        [web.get(names.STATUS_PATH, status), web.get(names.READY_PATH, ready), web.get(names.LIVE_PATH, live)]
    )
    return app


def _why(report: AgentReport) -> str:
    if report.ready:
        return "ready\n"
    lines = [f"{report.reason}: {report.message}"] if report.reason else []
    for model in report.models:
        why = f" {model.reason}: {model.message}" if model.reason else ""
        lines.append(f"{model.name}: {model.state}{why}")
    return "\n".join(lines) + "\n"
