"""The replay: each request to the stable revision, then to the candidate, and the two answers compared.

One request is in flight at a time, each over a connection of its own: the users of the stable revision notice
little of it, and it spreads over the pods.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from conch_agent.parity.compare import Difference, Incomparable, compare
from conch_agent.triton import Refused, TritonGone
from conch_agent.warmup.answers import Tensor, read
from conch_agent.warmup.infer import Endpoint, describe_losses
from conch_agent.warmup.requests import Request
from conch_contract import Disagreement, Parity, ParityReport
from conch_contract.parity import COMPARED
from conch_contract.remedies import explain

TIMED_OUT: Final = "ParityTimedOut"
NOTHING: Final = "ParityNothingCompared"
UNREACHABLE: Final = "ParityUnreachable"
_LONGEST: Final = 500  # characters of Triton's words, and of the remedy before them

Answer = dict[str, dict[str, object]]


@dataclass(frozen=True)
class Side:
    """One of the two revisions: what a message calls it, and the endpoint of its model."""

    name: str
    endpoint: Endpoint

    async def ask(self, request: Request) -> Answer | str:
        """Return the outputs by name, or why there are none. Raises TritonGone where no answer came."""
        try:
            async with self.endpoint as endpoint:
                answer = await endpoint.infer(None, request)
        except Refused as refusal:
            return explain(str(refusal))[:_LONGEST]
        except TritonGone as gone:
            raise TritonGone(f"The {self.name} has no answer to {request.label}: {gone}") from gone
        try:
            return read(answer.content, answer.header)
        except (ValueError, KeyError, TypeError) as error:
            return f"an answer that cannot be read: {type(error).__name__}: {error}"[:_LONGEST]


@dataclass
class Replay:
    """One comparison of two revisions."""

    asked: Parity
    stable: Side
    candidate: Side
    sent: int = 0
    compared: int = 0
    differences: list[Difference] = field(default_factory=list)
    unanswered: list[Disagreement] = field(default_factory=list)  # by the candidate
    left_out: list[str] = field(default_factory=list)  # why the stable revision's answer was no measure
    stable_failures: int = 0

    async def run(self, requests: Sequence[Request], seconds: float) -> ParityReport:
        """Send every request once to each, for `seconds` at most."""
        try:
            async with asyncio.timeout(seconds):
                for request in requests:
                    await self._one(request)
        except TritonGone as gone:
            return self._report(UNREACHABLE, f"{str(gone).rstrip('.')}.")
        except TimeoutError:
            for side in (self.stable, self.candidate):
                if side.endpoint.away:
                    return self._report(UNREACHABLE, f"The {side.name} does not answer: {side.endpoint.away}")
            losses = "".join(
                f" Of the {side.name} {describe_losses(side.endpoint)}."
                for side in (self.stable, self.candidate)
                if side.endpoint.losses
            )
            return self._report(
                TIMED_OUT,
                f"After {seconds:.0f} s only {self.compared} of {len(requests)} requests are compared. Raise"
                f" predictor.warmup.timeout, or replay fewer.{losses}",
            )
        if not self.compared:
            why = self.left_out[0] if self.left_out else "there is no request"
            return self._report(NOTHING, f"No answer could be compared: {why}.")
        return self._report(COMPARED, f"Left out: {self.left_out[0]}." if self.left_out else "")

    async def _one(self, request: Request) -> None:
        self.sent += 1
        stable = await self.stable.ask(request)
        if isinstance(stable, str):
            self.stable_failures += 1
            self.left_out.append(f"to {request.label} the stable revision says {stable.rstrip('.')}")
            return
        candidate = await self.candidate.ask(request)
        tensors: dict[str, Tensor] = dict(stable)
        if isinstance(candidate, str):
            if isinstance(found := compare(self.asked, tensors, tensors), Incomparable):
                self.left_out.append(found.why)
                return
            self.compared += 1
            self.unanswered.append(Disagreement(request=request.label, stable="an answer", candidate=candidate))
            return
        found = compare(self.asked, tensors, candidate)
        if isinstance(found, Incomparable):
            self.left_out.append(found.why)
            return
        self.compared += 1
        if found is not None:
            where = found.where.model_copy(update={"request": request.label})
            self.differences.append(Difference(found.far, where))

    def _report(self, reason: str, message: str) -> ParityReport:
        """Return what was seen. A request without an answer tells more than a number that is off."""
        worst = max(self.differences, key=lambda each: each.far, default=None)
        return ParityReport(
            requests=self.sent,
            compared=self.compared,
            agreed=self.compared - len(self.differences) - len(self.unanswered),
            stable_failures=self.stable_failures,
            candidate_failures=len(self.unanswered),
            worst=self.unanswered[0] if self.unanswered else worst.where if worst else None,
            reason=reason,
            message=message,
        )
