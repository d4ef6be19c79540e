"""A run of a warm-up: each request once, then rounds until the latency is stable or the time is over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from conch_agent.reasons import Reason
from conch_agent.tasks import run_all
from conch_agent.triton import ConnectionLostError, TritonError, TritonUnavailableError
from conch_agent.warmup.answers import describe_mismatch, read_outputs
from conch_agent.warmup.infer import Endpoint, describe_losses
from conch_agent.warmup.requests import Request
from conch_agent.warmup.rounds import is_stable, percentile
from conch_contract import Warmup, WarmupReport
from conch_contract.remedies import find_remedy
from conch_contract.warmup import NOT_STABLE, WARMED_UP

_ROUNDS_PER_TIMEOUT: Final = 5  # the minimum number of rounds fits so many times into the timeout


@dataclass(frozen=True)
class Call:
    """A request to a version of the model; `is_checked` is True if the expected outputs are those of this version."""

    request: Request
    version: int
    is_checked: bool = True


@dataclass(frozen=True)
class Fault:
    """The reason of a failed warm-up, and its message."""

    reason: Reason
    message: str


@dataclass
class WarmupRun:
    """A warm-up of a model. Each round has new connections to the endpoint.

    Attributes:
        warmup: Settings of the warm-up.
        model: Name of the model.
        endpoint: Endpoint of the model.
        min_rounds: Minimum number of rounds; at least two, for a comparison.
        concurrency: Number of requests in flight.
        faults: Refused requests and wrong answers.
    """

    warmup: Warmup
    model: str
    endpoint: Endpoint
    min_rounds: int = 2
    concurrency: int = 1
    faults: list[Fault] = field(default_factory=list)
    _unanswered: dict[int, Call] = field(default_factory=dict)  # by turn
    _outage: str = ""  # the reason why the endpoint is unreachable
    _rounds: list[list[float]] = field(default_factory=list)  # seconds
    _spans: list[float] = field(default_factory=list)  # seconds

    async def run(self, calls: Sequence[Call], seconds: float) -> WarmupReport:
        """Warm the model.

        Args:
            calls: The requests, each to a version.
            seconds: Longest duration of the warm-up.

        Returns:
            The report, also of a failure.

        Raises:
            TritonUnavailableError: No connection can be opened, and the endpoint has no deadline.
        """
        began = time.monotonic()
        stable = False
        self._unanswered = dict(enumerate(calls))
        try:
            async with asyncio.timeout(seconds):
                await self._run_round(calls, len(calls), seconds)
                self._rounds.clear()
                self._spans.clear()
                while not self.faults and not stable:
                    most = max(self.warmup.round_size, len(calls))
                    await self._run_round(calls, most, seconds / (self.min_rounds * _ROUNDS_PER_TIMEOUT))
                    stable = self._has_stable_latency()
        except TimeoutError:
            self._outage = self.endpoint.outage and f"{self.model} does not answer: {self.endpoint.outage}"
        except ConnectionLostError as error:
            self._outage = str(error)
        except TritonUnavailableError as error:
            if not self.endpoint.has_deadline:
                raise
            self._outage = f"{self.model} does not answer: {error}"
        return self._build_report(stable, time.monotonic() - began)

    async def _run_round(self, calls: Sequence[Call], most: int, longest: float) -> None:
        """Send each call once, and in turn up to `most` requests or `longest` seconds, over new connections."""
        latencies: list[float] = []
        began = time.monotonic()
        turns = iter(range(most))

        async def send_in_turn() -> None:
            for turn in turns:
                if turn >= len(calls) and time.monotonic() - began > longest:
                    return
                latency = await self._send(calls[turn % len(calls)], check=turn < len(calls))
                self._unanswered.pop(turn, None)
                if latency is not None:
                    latencies.append(latency)

        try:
            async with self.endpoint:
                await run_all(send_in_turn() for _ in range(min(self.concurrency, most)))
        finally:  # the answers of a round that the timeout ends are included
            if latencies:
                self._rounds.append(latencies)
                self._spans.append(time.monotonic() - began)

    async def _send(self, call: Call, *, check: bool) -> float | None:
        """Return the latency in seconds; None where the answer is a fault."""
        try:
            answer = await self.endpoint.infer(call.version, call.request)
        except TritonError as error:
            self._add_fault(Reason.WARMUP_FAILED, call, _describe_refusal(str(error)))
            return None
        except ConnectionLostError as error:
            raise ConnectionLostError(f"{self._describe_call(call)}, has no answer: {error}") from error
        if check and call.is_checked and call.request.expected:
            try:
                mismatch = describe_mismatch(
                    call.request.expected, read_outputs(answer.content, answer.header), self.warmup.tolerance
                )
            except (ValueError, KeyError, TypeError) as error:
                mismatch = f"it cannot be read: {type(error).__name__}: {error}"
            if mismatch:
                self._add_fault(Reason.WARMUP_WRONG, call, f"has another answer than expected: {mismatch}.")
                return None
        return answer.seconds

    def _add_fault(self, reason: Reason, call: Call, problem: str) -> None:
        self.faults.append(Fault(reason, f"{self._describe_call(call)}, {problem}"))

    def _describe_call(self, call: Call) -> str:
        label = call.request.label
        subject = label[0].upper() + label[1:] if label.startswith("the ") else f"Warm-up request {label}"
        return f"{subject}, to version {call.version} of {self.model}"

    def _has_stable_latency(self) -> bool:
        """Compare the two halves of the last rounds. With many rounds, each half has requests to many pods."""
        rounds = self._rounds[-self.min_rounds :]
        if len(rounds) < self.min_rounds:
            return False
        middle = len(rounds) // 2
        before, now = (
            percentile([latency for latencies in half for latency in latencies], self.warmup.percentile)
            for half in (rounds[:middle], rounds[middle:])
        )
        return is_stable(before, now, self.warmup.within)

    def _build_report(self, stable: bool, seconds: float) -> WarmupReport:
        rounds = self._rounds[-self.min_rounds :]
        latencies = [latency * 1000 for latencies in rounds for latency in latencies]
        span = sum(self._spans[-self.min_rounds :])
        reason, message = self._conclude(stable, seconds)
        return WarmupReport(
            requests=self.endpoint.sent,
            failures=len(self.faults) + len(self.endpoint.losses),
            p50_milliseconds=round(percentile(latencies, 50), 3),
            p99_milliseconds=round(percentile(latencies, 99), 3),
            requests_per_second=round(len(latencies) / span, 1) if span else 0.0,
            seconds=round(seconds, 3),
            stable=stable and not self.faults,
            reason=reason,
            message=message,
        )

    def _conclude(self, stable: bool, seconds: float) -> tuple[str, str]:
        """Return the reason and the message."""
        if self.faults:
            first, more = self.faults[0], len(self.faults) - 1
            return first.reason, first.message + (f" ({more} more failed.)" if more else "")
        if stable:
            return WARMED_UP, ""
        if self._outage:
            return Reason.WARMUP_UNREACHABLE, (
                f"{self._outage.rstrip('.')}. Read the log of the container triton, and the pods' events."
            )
        if self._unanswered:
            call, others = next(iter(self._unanswered.values())), len(self._unanswered) - 1
            rest = f" ({others} more have none.)" if others else ""
            return Reason.WARMUP_TIMED_OUT, (
                f"{self._describe_call(call)}, has no answer within {seconds:.0f} s ({describe_losses(self.endpoint)})."
                f" Raise warmup.timeout, send smaller requests, or read Triton's log.{rest}"
            )
        share, within = self.warmup.percentile, self.warmup.within
        last_rounds = ", ".join(f"{percentile(latencies, share) * 1000:.1f}" for latencies in self._rounds[-3:])
        return NOT_STABLE, (
            f"After {seconds:.0f} s and {len(self._rounds)} of at least {self.min_rounds} rounds, the p{share} latency "
            f"does not stay within {within:.0%} of the round before (last rounds: {last_rounds} ms). Raise "
            "warmup.stable.within, choose a lower percentile, or give the pods more CPU."
        )


def _describe_refusal(words: str) -> str:
    """Return the message about a refused request: the remedy, then Triton's message."""
    remedy = find_remedy(words)
    if remedy:
        return f"is refused. {remedy} Triton's words: {words}"
    return f"is refused: {words}. Correct the request, or the model."
