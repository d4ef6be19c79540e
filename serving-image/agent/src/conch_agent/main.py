"""The agent's program: it is live at once, so that Triton starts while the agent imports its libraries.

Of large libraries this module imports pydantic alone, which the contract has; `conch_agent.program` imports the others.
"""

from __future__ import annotations

import asyncio
from importlib import import_module

from conch_agent.control import ensure_key
from conch_agent.server import Endpoints
from conch_agent.settings import Settings, parse_arguments
from conch_agent.threads import run_in_thread
from conch_contract.process_end import end_before_finalization


@end_before_finalization
def main() -> None:
    """Run the agent of this pod."""
    asyncio.run(_run(parse_arguments()))


async def _run(settings: Settings) -> None:
    for folder in (settings.repository, settings.downloads, settings.decrypted):
        folder.mkdir(parents=True, exist_ok=True)
    key = ensure_key(settings.control_key)
    endpoints = Endpoints()
    async with endpoints.serve(
        settings.host, settings.port
    ):  # after the control key, which Triton reads when it starts
        program = await run_in_thread(import_module, "conch_agent.program")
        await program.run(settings, key, endpoints)
