"""The replay: it sends each request to the stable revision and then to the candidate, and compares the two answers.

One request is in flight at a time, each over a new connection: the load on the stable revision is small, and the
requests reach all pods.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from conch_agent.parity.compare import Difference, Incomparable, compare
from conch_agent.triton import TritonError, TritonUnavailableError
from conch_agent.warmup.answers import Tensor, read_outputs
from conch_agent.warmup.infer import Endpoint, describe_losses
from conch_agent.warmup.requests import Request
from conch_contract import Disagreement, Parity, ParityReport
from conch_contract.parity import COMPARED
from conch_contract.remedies import explain

TIMED_OUT: Final = "ParityTimedOut"
NOTHING: Final = "ParityNothingCompared"
UNREACHABLE: Final = "ParityUnreachable"
_LONGEST: Final = 500  # characters of Triton's message, with the remedy before it

Answer = dict[str, dict[str, object]]


@dataclass(frozen=True)
class Side:
    """One of the two revisions: its name in messages, and the endpoint of its model."""

    name: str
    endpoint: Endpoint

    async def infer(self, request: Request) -> Answer | str:
        """Return the outputs by name, or the reason why there are none.

        Args:
            request: The request.

        Raises:
            TritonUnavailableError: There is no answer.
        """
        try:
            async with self.endpoint as endpoint:
                answer = await endpoint.infer(None, request)
        except TritonError as error:
            return explain(str(error))[:_LONGEST]
        except TritonUnavailableError as error:
            raise TritonUnavailableError(f"The {self.name} has no answer to {request.label}: {error}") from error
        try:
            return read_outputs(answer.content, answer.header)
        except (ValueError, KeyError, TypeError) as error:
            return f"an answer that cannot be read: {type(error).__name__}: {error}"[:_LONGEST]


@dataclass
class Replay:
    """A comparison of two revisions.

    Attributes:
        settings: Method of the comparison.
        stable: The stable revision.
        candidate: The candidate.
        sent: Number of requests that were sent.
        compared: Number of requests whose answers were compared.
        differences: The differences of compared answers, each with its request.
        refusals: The candidate's refusals, which disagree, each with its request.
        exclusions: Reasons why answers of the stable revision were not compared.
        stable_failures: Number of requests that the stable revision refused.
    """

    settings: Parity
    stable: Side
    candidate: Side
    sent: int = 0
    compared: int = 0
    differences: list[tuple[Difference, Request]] = field(default_factory=list)
    refusals: list[tuple[Disagreement, Request]] = field(default_factory=list)
    exclusions: list[str] = field(default_factory=list)
    stable_failures: int = 0

    async def run(self, requests: Sequence[Request], seconds: float) -> ParityReport:
        """Send each request once to each revision.

        Args:
            requests: The requests.
            seconds: Longest duration of the replay.

        Returns:
            The report, also of a failure.
        """
        try:
            async with asyncio.timeout(seconds):
                for request in requests:
                    await self._compare_answers(request)
        except TritonUnavailableError as error:
            return self._build_report(UNREACHABLE, f"{str(error).rstrip('.')}.")
        except TimeoutError:
            for side in (self.stable, self.candidate):
                if side.endpoint.outage:
                    return self._build_report(UNREACHABLE, f"The {side.name} does not answer: {side.endpoint.outage}")
            losses = "".join(
                f" Of the {side.name} {describe_losses(side.endpoint)}."
                for side in (self.stable, self.candidate)
                if side.endpoint.losses
            )
            return self._build_report(
                TIMED_OUT,
                f"After {seconds:.0f} s only {self.compared} of {len(requests)} requests are compared. Raise"
                f" predictor.warmup.timeout, or replay fewer.{losses}",
            )
        if not self.compared:
            cause = self.exclusions[0] if self.exclusions else "there is no request"
            return self._build_report(NOTHING, f"No answer could be compared: {cause}.")
        return self._build_report(COMPARED, f"Left out: {self.exclusions[0]}." if self.exclusions else "")

    async def _compare_answers(self, request: Request) -> None:
        self.sent += 1
        stable = await self.stable.infer(request)
        if isinstance(stable, str):
            self.stable_failures += 1
            self.exclusions.append(f"the stable revision answers {request.label} with {stable.rstrip('.')}")
            return
        candidate = await self.candidate.infer(request)
        tensors: dict[str, Tensor] = dict(stable)
        if isinstance(candidate, str):
            if isinstance(result := compare(self.settings, tensors, tensors), Incomparable):
                self.exclusions.append(result.message)
                return
            self.compared += 1
            refusal = Disagreement(request=request.label, stable="an answer", candidate=candidate)
            self.refusals.append((refusal, request))
            return
        result = compare(self.settings, tensors, candidate)
        if isinstance(result, Incomparable):
            self.exclusions.append(result.message)
            return
        self.compared += 1
        if result is not None:
            disagreement = result.disagreement.model_copy(update={"request": request.label})
            self.differences.append((Difference(result.distance, disagreement), request))

    @property
    def worst(self) -> tuple[Disagreement, Request] | None:
        """The worst disagreement, and its request: a refusal, if there is one."""
        if self.refusals:
            return self.refusals[0]
        if not self.differences:
            return None
        difference, request = max(self.differences, key=lambda found: found[0].distance)
        return difference.disagreement, request

    def _build_report(self, reason: str, message: str) -> ParityReport:
        return ParityReport(
            requests=self.sent,
            compared=self.compared,
            agreed=self.compared - len(self.differences) - len(self.refusals),
            stable_failures=self.stable_failures,
            candidate_failures=len(self.refusals),
            worst=self.worst[0] if self.worst else None,
            reason=reason,
            message=message,
        )
