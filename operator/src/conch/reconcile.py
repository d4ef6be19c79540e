"""The one loop: look, ask, decide, write the difference, tell. Read this file first.

Every package that it calls but `signals` and `write` is a pure function; what is not finished is not
waited for here, but planned: a reconcile returns, and an event or the queue's clock brings it back.
"""

import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from conch.api import Status
from conch.api.kinds import INFERENCE_SERVICE, Ref, ServiceKey
from conch.api.metrics import MetricsApi
from conch.attempts import Attempts
from conch.claims import Claims
from conch.contests import Contest, Contests
from conch.decide import (
    MeasurementRequest,
    build_events,
    build_measurement_request,
    build_stalled_status,
    build_status,
    build_unreadable_status,
    decide,
    find_stuck_objects,
    find_unreported_pods,
    needs_capacity,
)
from conch.desire import PodDefaults, desire
from conch.observe import Gateways, Store, Unreadable, observe
from conch.observe.compare import fingerprint
from conch.observe.fields import mapping
from conch.observe.managers import find_managers
from conch.plan import LASTING, Action, Apply, Change, Refusal, Step, plan, unwritten
from conch.shutdown import END_SECONDS, finish
from conch.signals import Agents, Capacities, Collector, Warnings
from conch.write import CallError, EventWriter, Writer

# Objects that were not kept for want of space are read again, so many at a time: no event reports that there is space.
_READ_AGAIN: Final = 20
_READ_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Reconciler:
    """What a reconcile needs of the outside: stores, ears, mouths, a clock."""

    store: Store
    gateways: Gateways | None  # None: nobody watches them
    agents: Agents
    collector: Collector
    capacities: Capacities
    warnings: Warnings
    claims: Claims
    contests: Contests
    writer: Writer
    event_writer: EventWriter
    defaults: PodDefaults
    metrics_api: MetricsApi
    prometheus: str  # where KEDA asks about Triton
    clock: Callable[[], float]
    writes: Attempts[Ref] = field(default_factory=Attempts)  # of objects, that failed in a way that may pass
    reconciles: Attempts[None] = field(default_factory=Attempts)  # that raised
    monotonic: Callable[[], float] = time.monotonic

    async def __call__(self, key: ServiceKey) -> "Outcome":
        """Bring one service nearer to what its spec asks.

        Raises:
            CallError: the status cannot be written; try again later.
            Exception: an error of Conch's own. Once it lasts, the status reports it.
        """
        try:
            outcome = await self._reconcile(key)
        except Exception as error:
            attempts = self.reconciles.failed(key, [None])
            if attempts[None] >= LASTING:
                with suppress(CallError):
                    await self._report(key, error)
            raise
        self.reconciles.failed(key, [])
        return outcome

    async def _reconcile(self, key: ServiceKey) -> "Outcome":
        body = self.store.get(key, Ref(INFERENCE_SERVICE, key.name))
        if body is None or "deletionTimestamp" in body["metadata"]:
            self.claims.forget(key)
            self._forget(key)
            return Outcome()  # gone, and the garbage collector takes the children
        if not await self.claims.is_ours(key, body):
            self._forget(key)
            return Outcome(yields=True)
        snapshot = observe(self.store, key, self.clock(), self.gateways, self.metrics_api, prometheus=self.prometheus)
        if snapshot is None:
            return Outcome()
        if isinstance(snapshot, Unreadable):
            return await self._report_unreadable(key, snapshot)
        before = snapshot.service.status
        snapshot = snapshot.without_future_times()
        snapshot = snapshot.with_reports(self.agents.request(key, find_unreported_pods(snapshot)))
        snapshot = snapshot.with_warnings(self.warnings.request(key, find_stuck_objects(snapshot)))
        snapshot = snapshot.with_measured(
            self.collector.request(key, snapshot.pods, build_measurement_request(snapshot))
        )
        snapshot = snapshot.with_capacity(self.capacities.request(key, waits=needs_capacity(snapshot)))
        decision = decide(snapshot)
        steps, blocked = plan(snapshot, decision, desire(snapshot, decision, self.defaults))
        uid = snapshot.service.metadata.uid
        deferral = self.contests.defer(key, steps, self.monotonic())
        contested = [await self._name_managers(key, contest) for contest in deferral.contests]
        refusals = [*blocked, *await self._carry_out(key, uid, deferral.steps)]
        attempts = self.writes.failed(key, [refusal.ref for refusal in refusals if not refusal.final])
        # A rollout's deadline, and with it the way back, does not depend on the write of a child.
        found = unwritten(snapshot.service, [*refusals, *(contest.to_refusal() for contest in contested)], attempts)
        status = build_status(snapshot, decision, found)
        if not await self._tell(key, uid, before, status):
            return Outcome()
        waits = (decision.wait, deferral.wait, self._status_due_in(key, status))
        return Outcome(wait=min((wait for wait in waits if wait is not None), default=None), refusals=tuple(refusals))

    def _forget(self, key: ServiceKey) -> None:
        """Forget all that is known of a service which is gone, or which another installation serves."""
        self.contests.forget(key)
        self.agents.request(key, ())
        self.warnings.request(key, ())
        self.collector.request(key, (), MeasurementRequest())
        self.capacities.request(key, waits=False)
        self.writer.forget(key)
        self.writes.failed(key, ())

    async def _report_unreadable(self, key: ServiceKey, service: Unreadable) -> "Outcome":
        """Report why a service is not decided on, and read again what was not kept."""
        status = build_unreadable_status(service, self.clock())
        if not await self._tell(key, service.uid, Status.lenient(service.status), status):
            return Outcome()
        for ref in service.cut[:_READ_AGAIN]:
            await self.writer.read(key, ref)
        due = self._status_due_in(key, status)
        return Outcome(wait=_READ_SECONDS if service.cut and due is None else due)

    async def _name_managers(self, key: ServiceKey, contest: Contest) -> Contest:
        """Return a contest with the field managers of the other writers, which are read once."""
        if contest.managers is not None:
            return contest
        metadata = {} if contest.is_missing else await self.writer.metadata(key, contest.ref)
        if metadata is None:
            return contest  # the next reconcile reads them
        managers = sorted({name for place in contest.places for name in find_managers(metadata, place)})
        self.contests.note_managers(key, contest.ref, managers)
        return replace(contest, managers=tuple(managers))

    async def _carry_out(self, key: ServiceKey, uid: str, steps: Sequence[Step]) -> list[Refusal]:
        """Write the steps, and count what they changed; return the writes that failed."""
        actions = [action for step in steps for action in step]
        versions = {action.ref: self.store.version(key, action.ref) for action in actions}
        refusals = await self.writer.carry_out(key, uid, steps)
        failed = {refusal.ref for refusal in refusals}

        def is_written(action: Action) -> bool:
            # An apply that changes nothing is no move in a contest.
            changed = not isinstance(action, Apply) or self.store.version(key, action.ref) != versions[action.ref]
            return changed and action.ref not in failed

        self.contests.record(key, [action for action in actions if is_written(action)], self.monotonic())
        return refusals

    async def _tell(self, key: ServiceKey, uid: str, before: Status, after: Status) -> bool:
        """Write the status and its events, if they are new; return whether the service is still there."""
        after = self._with_installation(after)
        if after == before or self._status_due_in(key, after):
            return True
        return await finish(self._write_status(key, uid, before, after), END_SECONDS)

    async def _write_status(self, key: ServiceKey, uid: str, before: Status, after: Status) -> bool:
        ref = Ref(INFERENCE_SERVICE, key.name)
        version = self.store.version(key, ref)
        there = await self.writer.write_status(key, uid, after.to_wire())
        if self.store.version(key, ref) != version:
            self.contests.record_changes(key, ref, [_status_change(after)], self.monotonic())
        if there:
            await self.event_writer.tell(key, uid, build_events(before, after), self.clock())
        return there

    def _status_due_in(self, key: ServiceKey, status: Status) -> float | None:
        """Return the seconds until a status may be written that another writer changes again and again."""
        ref = Ref(INFERENCE_SERVICE, key.name)
        if not self.contests.is_contested(key, ref):
            return None
        change = _status_change(self._with_installation(status))
        wait = self.contests.due_in(key, ref, [change], self.monotonic())
        return wait if wait > 0 else None

    def _with_installation(self, status: Status) -> Status:
        """Return a status as it is written: it names this installation."""
        return status.model_copy(update={"installation": self.claims.installation})

    async def _report(self, key: ServiceKey, error: Exception) -> None:
        """Report in the status that the service cannot be reconciled. What serves is left as it is."""
        body = self.store.get(key, Ref(INFERENCE_SERVICE, key.name))
        if body is None:
            return
        before = Status.lenient(mapping(body.get("status")))
        meta, (reason, message) = body["metadata"], failure_words(error)
        after = build_stalled_status(before, meta["generation"], reason, message, self.clock())
        await self._tell(key, meta["uid"], before, after)


@dataclass(frozen=True)
class Outcome:
    """When to look again, in seconds, if nothing happens; and the writes that failed."""

    wait: float | None = None
    refusals: tuple[Refusal, ...] = ()
    yields: bool = False  # another installation serves it, or may do so


def _status_change(status: Status) -> Change:
    """Return what two writers of a status contest: all but the times, which move with each write."""
    return ("f:status",), fingerprint(status.without_future(0.0).to_wire())


def failure_words(error: Exception) -> tuple[str, str]:
    """Return the reason, and the sentence that the user reads, of a reconcile that raised.

    >>> failure_words(ValueError("no such thing"))
    ('ReconcileFailed', 'The operator cannot reconcile the service: ValueError: no such thing. What serves is left as \
it is, and the operator tries again. This is an error of Conch; report it with the log of the operator.')
    """
    if isinstance(error, CallError):
        return error.reason or "CallFailed", f"A call to the API server fails, and is tried again: {error.message}"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return "ReconcileFailed", (
        f"The operator cannot reconcile the service: {type(error).__name__}: {error}{place}. What serves is left as"
        " it is, and the operator tries again. This is an error of Conch; report it with the log of the operator."
    )
