"""The course of a warm-up: every request once, then rounds until the latency is stable or the time is over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from conch_agent.reasons import Reason
from conch_agent.tasks import run_all
from conch_agent.triton import ConnectionLost, Refused, TritonGone
from conch_agent.warmup.answers import complaint, read
from conch_agent.warmup.infer import Endpoint, describe_losses
from conch_agent.warmup.requests import Request
from conch_agent.warmup.rounds import percentile, settled
from conch_contract import Warmup, WarmupReport
from conch_contract.remedies import find_remedy
from conch_contract.warmup import NOT_STABLE, WARMED_UP

_ROUNDS_IN_TIME: Final = 5  # so many times the least number of rounds fit into the timeout, if one request does


@dataclass(frozen=True)
class Call:
    """One request to one version of the model; `checked` tells whether the expected outputs speak of that version."""

    request: Request
    version: int
    checked: bool = True


@dataclass(frozen=True)
class Fault:
    """Why a warm-up fails."""

    reason: Reason
    message: str


@dataclass
class Course:
    """One warm-up of one model. Each round has connections of its own to the endpoint.

    `at_least` is the number of rounds that must be (2: a comparison), `at_once` how many requests are in flight.
    """

    warmup: Warmup
    model: str
    endpoint: Endpoint
    at_least: int = 2
    at_once: int = 1
    faults: list[Fault] = field(default_factory=list)
    _unanswered: dict[int, Call] = field(default_factory=dict)  # by its turn
    _unreachable: str = ""  # why the endpoint was given up
    _rounds: list[list[float]] = field(default_factory=list)  # seconds
    _spans: list[float] = field(default_factory=list)  # seconds

    async def run(self, calls: Sequence[Call], seconds: float) -> WarmupReport:
        """Warm the model for `seconds` at most. Raises TritonGone where the endpoint does not wait for a server."""
        began = time.monotonic()
        stable = False
        self._unanswered = dict(enumerate(calls))
        try:
            async with asyncio.timeout(seconds):
                await self._round(calls, len(calls), seconds)
                self._rounds.clear()
                self._spans.clear()
                while not self.faults and not stable:
                    most = max(self.warmup.round_size, len(calls))
                    await self._round(calls, most, seconds / (self.at_least * _ROUNDS_IN_TIME))
                    stable = self._stable()
        except TimeoutError:
            self._unreachable = self.endpoint.away and f"{self.model} does not answer: {self.endpoint.away}"
        except ConnectionLost as lost:
            self._unreachable = str(lost)
        except TritonGone as gone:
            if not self.endpoint.waits:
                raise
            self._unreachable = f"{self.model} does not answer: {gone}"
        return self._report(stable, time.monotonic() - began)

    async def _round(self, calls: Sequence[Call], most: int, longest: float) -> None:
        """Ask each call once, and on in turn up to `most` requests or `longest` seconds, over a new connection."""
        latencies: list[float] = []
        began = time.monotonic()
        turns = iter(range(most))

        async def ask() -> None:
            for turn in turns:
                if turn >= len(calls) and time.monotonic() - began > longest:
                    return
                latency = await self._ask(calls[turn % len(calls)], check=turn < len(calls))
                self._unanswered.pop(turn, None)
                if latency is not None:
                    latencies.append(latency)

        try:
            async with self.endpoint:
                await run_all(ask() for _ in range(min(self.at_once, most)))
        finally:  # the time may be over in the middle of a round: its answers count
            if latencies:
                self._rounds.append(latencies)
                self._spans.append(time.monotonic() - began)

    async def _ask(self, call: Call, *, check: bool) -> float | None:
        """Return the latency in seconds, None where the answer is a fault."""
        try:
            answer = await self.endpoint.infer(call.version, call.request)
        except Refused as refusal:
            self._fault(Reason.WARMUP_FAILED, call, _describe_refusal(str(refusal)))
            return None
        except ConnectionLost as lost:
            raise ConnectionLost(f"{self._name(call)}, has no answer: {lost}") from lost
        if check and call.checked and call.request.expected:
            try:
                wrong = complaint(call.request.expected, read(answer.content, answer.header), self.warmup.tolerance)
            except (ValueError, KeyError, TypeError) as error:
                wrong = f"it cannot be read: {type(error).__name__}: {error}"
            if wrong:
                self._fault(Reason.WARMUP_WRONG, call, f"has another answer than expected: {wrong}.")
                return None
        return answer.seconds

    def _fault(self, reason: Reason, call: Call, what: str) -> None:
        self.faults.append(Fault(reason, f"{self._name(call)}, {what}"))

    def _name(self, call: Call) -> str:
        label = call.request.label
        subject = label[0].upper() + label[1:] if label.startswith("the ") else f"Warm-up request {label}"
        return f"{subject}, to version {call.version} of {self.model}"

    def _stable(self) -> bool:
        """Compare the two halves of the last rounds: of two, a round with the one before; of many, many pods each."""
        judged = self._rounds[-self.at_least :]
        if len(judged) < self.at_least:
            return False
        middle = len(judged) // 2
        before, now = (
            percentile([latency for latencies in half for latency in latencies], self.warmup.percentile)
            for half in (judged[:middle], judged[middle:])
        )
        return settled(before, now, self.warmup.within)

    def _report(self, stable: bool, seconds: float) -> WarmupReport:
        judged = self._rounds[-self.at_least :]
        latencies = [latency * 1000 for latencies in judged for latency in latencies]
        span = sum(self._spans[-self.at_least :])
        reason, message = self._verdict(stable, seconds)
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

    def _verdict(self, stable: bool, seconds: float) -> tuple[str, str]:
        """Return the reason and the sentence."""
        if self.faults:
            first, more = self.faults[0], len(self.faults) - 1
            return first.reason, first.message + (f" ({more} more failed.)" if more else "")
        if stable:
            return WARMED_UP, ""
        if self._unreachable:
            return Reason.WARMUP_UNREACHABLE, (
                f"{self._unreachable.rstrip('.')}. Look at the log of the container triton, and at the pods' events."
            )
        if self._unanswered:
            call, others = next(iter(self._unanswered.values())), len(self._unanswered) - 1
            rest = f" ({others} more have none.)" if others else ""
            return Reason.WARMUP_TIMED_OUT, (
                f"{self._name(call)}, has no answer within {seconds:.0f} s ({describe_losses(self.endpoint)}). Raise"
                f" warmup.timeout, send smaller requests, or look at Triton's log.{rest}"
            )
        share, within = self.warmup.percentile, self.warmup.within
        told = ", ".join(f"{percentile(latencies, share) * 1000:.1f}" for latencies in self._rounds[-3:])
        return NOT_STABLE, (
            f"After {seconds:.0f} s and {len(self._rounds)} of at least {self.at_least} rounds, the p{share} latency "
            f"does not stay within {within:.0%} of the round before (last rounds: {told} ms). Raise warmup.stable."
            "within, choose a lower percentile, or give the pods more CPU."
        )


def _describe_refusal(words: str) -> str:
    """Return what became of a refused request: what to do, then Triton's words."""
    found = find_remedy(words)
    if found:
        return f"is refused. {found} Triton's words: {words}"
    return f"is refused: {words}. Correct the request, or the model."
