"""The reconcile loop: observe, collect signals, decide, write the difference, update the status. Read this file first.

All packages that it calls, but `signals` and `write`, are pure functions. A reconcile never waits for pods or traffic:
it returns, and an event or a delay queues the service again.
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
from conch.api.reasons import Reason
from conch.attempts import Attempts
from conch.claims import Claims
from conch.contests import Contest, Contests
from conch.decide import (
    MeasurementRequest,
    build_events,
    build_measurement_request,
    build_report_requests,
    build_stalled_status,
    build_status,
    build_unreadable_status,
    decide,
    find_stuck_objects,
    needs_capacity,
)
from conch.desire import PodDefaults, desire
from conch.observe import Gateways, SignaturePolicies, Store, Unreadable, observe
from conch.observe.compare import fingerprint
from conch.observe.fields import mapping
from conch.observe.managers import find_managers
from conch.plan import LASTING, Action, Apply, ApplyRejected, Change, Step, find_unwritten, plan
from conch.shutdown import END_SECONDS, finish
from conch.signals import Agents, Capacities, Collector, Warnings
from conch.write import CallError, EventWriter, Writer

# Objects that were not kept for lack of space are read again, so many at a time: no event reports free space.
_REREADS: Final = 20
_REREAD_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Reconciler:
    """Collaborators of a reconcile: caches, collectors, writers and a clock."""

    store: Store
    gateways: Gateways | None  # None: they are not watched
    policies: SignaturePolicies
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
    prometheus: str  # URL of the Prometheus that KEDA queries
    clock: Callable[[], float]
    writes: Attempts[Ref] = field(default_factory=Attempts)  # failed writes of objects, with errors that may pass
    reconciles: Attempts[None] = field(default_factory=Attempts)  # reconciles that raised
    monotonic: Callable[[], float] = time.monotonic

    async def __call__(self, key: ServiceKey) -> "Outcome":
        """Reconcile one service.

        Raises:
            CallError: the status cannot be written; retry later.
            Exception: an error of Conch's own. Once it lasts, the status reports it.
        """
        try:
            outcome = await self._reconcile(key)
        except Exception as error:
            attempts = self.reconciles.count(key, [None])
            if attempts[None] >= LASTING:
                with suppress(CallError):
                    await self._report(key, error)
            raise
        self.reconciles.count(key, [])
        return outcome

    async def _reconcile(self, key: ServiceKey) -> "Outcome":
        body = self.store.get(key, Ref(INFERENCE_SERVICE, key.name))
        if body is None or "deletionTimestamp" in body["metadata"]:
            self.claims.forget(key)
            self._forget(key)
            return Outcome()  # gone; the garbage collector deletes the children
        if not await self.claims.is_ours(key, body):
            self._forget(key)
            return Outcome(yields=True)
        for kind, labels in self.store.left_out(key).items():
            await self.writer.list_children(key.namespace, kind, labels)
        snapshot = observe(
            self.store,
            key,
            self.clock(),
            self.gateways,
            self.metrics_api,
            prometheus=self.prometheus,
            policy=self.policies.find(key.namespace),
        )
        if snapshot is None:
            return Outcome()
        if isinstance(snapshot, Unreadable):
            return await self._report_unreadable(key, snapshot)
        before = snapshot.service.status
        snapshot = snapshot.without_future_times()
        snapshot = snapshot.with_reports(self.agents.request(key, build_report_requests(snapshot)))
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
        rejections = [*blocked, *await self._execute(key, uid, deferral.steps)]
        attempts = self.writes.count(key, [rejection.ref for rejection in rejections if not rejection.final])
        # A rollout's deadline, and with it the way back, does not depend on the write of a child.
        found = find_unwritten(
            snapshot.service, [*rejections, *(contest.to_rejection() for contest in contested)], attempts
        )
        status = build_status(snapshot, decision, found)
        if not await self._update_status(key, uid, before, status):
            return Outcome()
        waits = (decision.wait, deferral.wait, self._status_due_in(key, status))
        return Outcome(
            wait=min((wait for wait in waits if wait is not None), default=None), rejections=tuple(rejections)
        )

    def _forget(self, key: ServiceKey) -> None:
        """Drop all state of a service that is gone, or that another installation serves."""
        self.contests.forget(key)
        self._end_requests(key)
        self.writer.forget(key)
        self.writes.count(key, ())

    def _end_requests(self, key: ServiceKey) -> None:
        """Let nothing be read in the background for a service. Without this, its pods are polled for ever."""
        self.agents.request(key, ())
        self.warnings.request(key, {})
        self.collector.request(key, (), MeasurementRequest())
        self.capacities.request(key, waits=False)

    async def _report_unreadable(self, key: ServiceKey, service: Unreadable) -> "Outcome":
        """Report why a service is not reconciled, and read again the objects that were not kept."""
        self._end_requests(key)
        status = build_unreadable_status(service, self.clock())
        if not await self._update_status(key, service.uid, Status.lenient(service.status), status):
            return Outcome()
        for ref in service.cut[:_REREADS]:
            await self.writer.read(key, ref)
        due = self._status_due_in(key, status)
        return Outcome(wait=_REREAD_SECONDS if service.cut and due is None else due)

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

    async def _execute(self, key: ServiceKey, uid: str, steps: Sequence[Step]) -> list[ApplyRejected]:
        """Write the steps, and count what they changed; return the writes that failed."""
        actions = [action for step in steps for action in step]
        versions = {action.ref: self.store.version(key, action.ref) for action in actions}
        rejections = await self.writer.execute(key, uid, steps)
        failed = {rejection.ref for rejection in rejections}

        def is_written(action: Action) -> bool:
            # An apply that changes nothing is no move in a contest.
            changed = not isinstance(action, Apply) or self.store.version(key, action.ref) != versions[action.ref]
            return changed and action.ref not in failed

        self.contests.record(key, [action for action in actions if is_written(action)], self.monotonic())
        return rejections

    async def _update_status(self, key: ServiceKey, uid: str, before: Status, after: Status) -> bool:
        """Write the status and its events, if they are new; return whether the service is still there.

        If its label has changed meanwhile, the status is that of the installation that serves it now.
        """
        if self.store.generation(key) is None:
            return False
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
            await self.event_writer.record(key, uid, build_events(before, after), self.clock())
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
        """Report in the status that the service cannot be reconciled. Its pods keep serving."""
        body = self.store.get(key, Ref(INFERENCE_SERVICE, key.name))
        if body is None:
            return
        before = Status.lenient(mapping(body.get("status")))
        meta, (reason, message) = body["metadata"], describe_error(error)
        after = build_stalled_status(before, meta["generation"], reason, message, self.clock())
        await self._update_status(key, meta["uid"], before, after)


@dataclass(frozen=True)
class Outcome:
    """Result of a reconcile: the seconds until the next one, if no event comes first, and the failed writes."""

    wait: float | None = None
    rejections: tuple[ApplyRejected, ...] = ()
    yields: bool = False  # another installation serves it, or may serve it


def _status_change(status: Status) -> Change:
    """Return the part of a status that two writers contest: all but the times, which change with each write."""
    return ("f:status",), fingerprint(status.limit_times(0.0).to_wire())


def describe_error(error: Exception) -> tuple[str, str]:
    """Return the reason and the message for the status of a reconcile that raised.

    >>> describe_error(ValueError("no such thing"))
    ('ReconcileFailed', 'The operator cannot reconcile the service: ValueError: no such thing. The existing pods \
keep serving, and the operator retries. This is a bug of Conch; report it with the log of the operator.')
    """
    if isinstance(error, CallError):
        return (
            error.reason or Reason.CALL_FAILED.value,
            f"A call to the API server failed and is retried: {error.message}",
        )
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return Reason.RECONCILE_FAILED.value, (
        f"The operator cannot reconcile the service: {type(error).__name__}: {error}{place}. The existing pods"
        " keep serving, and the operator retries. This is a bug of Conch; report it with the log of the operator."
    )
