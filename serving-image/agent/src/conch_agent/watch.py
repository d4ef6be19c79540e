"""One look at Triton for all models, again and again: what it serves, whether it restarted, is it closed."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from conch_agent.guard import prove_closed
from conch_agent.reasons import Failure, Reason
from conch_agent.settings import Settings
from conch_agent.triton import Refused, Triton, TritonGone, View

SETTLED: Final = 1.0  # seconds between looks when every model is as it shall be
EAGER: Final = 0.2  # and while one is not


class Watch:
    """`view` is the last look, or None: then `failure` says why models cannot be served now.

    A view is given out only of a Triton whose control is proved closed, anew after each of its starts.
    """

    def __init__(self, settings: Settings, triton: Triton) -> None:
        self.view: View | None = None
        self.failure = _waiting(settings, "not asked yet")
        self.interval = EAGER
        self._settings = settings
        self._triton = triton
        self._proved = False
        self._looking = asyncio.Lock()
        self._looked = asyncio.Condition()
        self._log = structlog.get_logger()

    async def look(self, *, prove: bool = False) -> View | None:
        """Read Triton's index once, publish it as `view` and return it.

        Args:
            prove: prove that control is closed even if Triton seems not to have restarted.
        """
        async with self._looking:
            view = await self._read_index(prove=prove)
        async with self._looked:
            self.view = view
            self._looked.notify_all()
        return view

    async def _read_index(self, *, prove: bool) -> View | None:
        """Return Triton's index; None: `failure` is the reason."""
        try:
            answer = await self._triton.index()
            if self._restarted(answer):
                self._log.warning("triton restarted")
                self._proved = False
            if prove or not self._proved:
                was_proved, self._proved = self._proved, False
                await prove_closed(self._settings.triton_grpc, self._settings.triton_http)
                self._proved = True
                if not was_proved:
                    self._log.info("control is closed", proof="gRPC and HTTP refuse without the key")
        except TritonGone as gone:
            self._proved = False
            self.failure = _waiting(self._settings, str(gone))
        except Refused as refusal:
            self._proved = False
            message = f"Triton refuses the pod's own control key: {refusal}. Was it started with another key?"
            self.failure = Failure(Reason.TRITON_UNREACHABLE, message)
        except Failure as failure:
            if failure.message != self.failure.message:
                self._log.error("control is open", message=failure.message)
            self.failure = failure
        else:
            return answer
        return None

    async def next(self) -> View | None:
        """Return the next look's view."""
        async with self._looked:
            await self._looked.wait()
            return self.view

    def _restarted(self, answer: View) -> bool:
        """Tell a new process by its forgetting: what was loaded once keeps a state until Triton ends."""
        had = {name for name, versions in (self.view or {}).items() if any(version.state for version in versions)}
        return any(name in answer and not any(version.state for version in answer[name]) for name in had)


def _waiting(settings: Settings, detail: str) -> Failure:
    why = detail.splitlines()[0][:200] if detail else "no answer"
    message = f"Waiting for Triton at {settings.triton_grpc} ({why})."
    return Failure(Reason.TRITON_UNREACHABLE, message)
