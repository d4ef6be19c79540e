"""What a manifest would do: the operator's own pure packages, run over values. No call, no clock.

It is the operator's next look at the service, not a guess of it: observe, decide, desire, plan and build_status are the
functions that the operator runs. Only pods' agents and metrics are not asked. Later looks depend on what pods and
traffic will do; of these the steps are told.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from conch.api import Admission, StepInForce
from conch.api.kinds import ServiceKey
from conch.api.metrics import MetricsApi
from conch.cli.actions import step_words
from conch.cli.options import Refused
from conch.cli.track import requests_of
from conch.decide import Decision, build_status, decide, needs_capacity
from conch.decide.context import least_replicas
from conch.decide.strategies import find_parity_gate, strategy_of
from conch.desire import PodDefaults, desire
from conch.observe import Store, Track, Unreadable, observe
from conch.observe.capacity import Capacity
from conch.plan import Action, Adopt, Apply, ApplyRejected, Delete, find_unwritten, plan
from conch.traffic import router_of
from conch.triton import list_configured_fields


@dataclass(frozen=True)
class Write:
    """One write of the operator. Those of a row depend on nothing but the rows before it."""

    row: int
    action: str  # create, change, delete, adopt (an orphan), or hand over (a Deployment's replicas, to its autoscaler)
    kind: str
    name: str
    manifest: Mapping[str, Any] | None


@dataclass(frozen=True)
class Stage:
    """One step of the rollout: what it gives the new revision, and what it waits for."""

    number: int
    said: str  # as the manifest spells it
    pods: int | None  # ready pods that it takes; None: as many as before
    waits: str
    state: str  # passed, now, or empty: to come


@dataclass(frozen=True)
class Course:
    """What becomes of the predictor, or of one variant."""

    variant: str  # empty: the predictor
    requests: str  # which ones a variant gets, in words
    revision: str
    number: int
    known: bool  # whether it is in the history already
    serving: str | None  # what serves now
    message: str
    budget: str  # what its pods ask of the GPUs, and whether there are as many; empty: nothing
    stages: tuple[Stage, ...]
    configured: tuple[str, ...] = ()  # fields of the manifest that win over the same fields of config.pbtxt
    warnings: tuple[tuple[str, str], ...] = ()  # reason and message, as pods of the revision reported them


@dataclass(frozen=True)
class Foresight:
    """What would happen."""

    service: ServiceKey
    main: Course
    variants: tuple[Course, ...]  # in the spec's order
    left: tuple[str, ...]  # variants that are asked for no more, and of which something is left
    writes: tuple[Write, ...]
    rejections: tuple[ApplyRejected, ...]
    asks: bool  # whether a rollout depends on what GPUs there are
    conditions: tuple[tuple[str, str, str, str], ...]  # type, status, reason, message: the status that follows


@dataclass(frozen=True)
class Installed:
    """How the operator is installed, as far as its writes depend on it."""

    defaults: PodDefaults
    metrics_api: MetricsApi = "builtin"
    prometheus: str = ""


def foresee(
    bodies: Iterable[Mapping[str, Any]],
    key: ServiceKey,
    installed: Installed,
    now: float,
    capacity: Capacity | None = None,
) -> Foresight:
    """Run the packages over a service and what there is of it.

    Args:
        bodies: the service as the API server would hand it out, and its children and pods, if there are any.
        key: which service.
        installed: what new revisions run, and who drives their number.
        now: seconds since the epoch.
        capacity: what GPUs there are; None: nobody has looked.

    Raises:
        Refused: the service cannot be read.
    """
    store = Store()
    for body in bodies:
        store.put(body)
    snapshot = observe(store, key, now, None, installed.metrics_api, prometheus=installed.prometheus)
    if snapshot is None:
        raise Refused(f"{key} is being deleted; wait until it is gone, and look again")
    if isinstance(snapshot, Unreadable):
        raise Refused(snapshot.message)
    snapshot = snapshot.without_future_times()
    snapshot = snapshot.with_capacity(capacity)
    decisions = decide(snapshot)
    steps, rejections = plan(snapshot, decisions, desire(snapshot, decisions, installed.defaults))
    status = build_status(snapshot, decisions, find_unwritten(snapshot.service, rejections, {}))
    main, *variants = map(_course, decisions.tracks)
    return Foresight(
        service=key,
        main=main,
        variants=tuple(variants),
        left=tuple(left.service.variant for left in snapshot.removed_tracks),
        writes=tuple(_write(row, action) for row, step in enumerate(steps, 1) for action in step),
        rejections=tuple(rejections),
        asks=needs_capacity(snapshot),
        conditions=tuple((c.type, c.status, c.reason, c.message) for c in status.conditions),
    )


def _course(decision: Decision) -> Course:
    track = decision.track
    asked = track.service.variant_spec
    return Course(
        variant=track.service.variant,
        requests=requests_of(asked) if asked else "",
        revision=decision.wanted,
        number=decision.number,
        known=decision.wanted in track.revisions,
        serving=track.routed,
        message=_message(track, decision),
        budget=decision.budget,
        stages=_stages(track, decision),
        configured=list_configured_fields(track.service.spec.predictor.triton),
        warnings=_warnings(track, decision.wanted),
    )


def _warnings(track: Track, revision: str) -> tuple[tuple[str, str], ...]:
    """Return what the models of a revision warn of, as the status has it; nothing of a revision without pods."""
    status = track.service.status.revision(revision)
    models = status.models if status is not None else ()
    return tuple((warning.reason, warning.message) for model in models for warning in model.warnings)


def _write(row: int, action: Action) -> Write:
    match action:
        case Apply(ref, manifest, new):
            return Write(row, "create" if new else "change", ref.kind.name, ref.name, manifest)
        case Delete(ref):
            return Write(row, "delete", ref.kind.name, ref.name, None)
        case Adopt(ref):
            return Write(row, "adopt", ref.kind.name, ref.name, None)
        case _:
            return Write(row, "hand over", action.ref.kind.name, action.ref.name, action.manifest)


_SHORT: Final[dict[Admission | None, str]] = {
    Admission.PENDING: "when there are GPUs for its pods, by the steps below; until then they do not start.",
    Admission.INSUFFICIENT: "after its pods have ended, for there are no GPUs for both: requests fail in between.",
}


def _message(track: Track, decision: Decision) -> str:
    """Say what becomes of the revisions."""
    if decision.failed:
        return f"Revision {decision.wanted} failed before and stays refused; {decision.serving} serves on."
    if decision.rollout is not None:
        way = _SHORT.get(decision.rollout.admission, "by the steps below.")
        back = (
            "" if decision.wanted not in track.revisions else " It is in the history: its pods start as they did then."
        )
        return f"Revision {decision.wanted} takes over from {decision.serving} {way}{back}"
    if not decision.admitted:
        pods = "1 of its pods is" if decision.needed == 1 else f"{decision.needed} of its pods are"
        warm = " and warm" if track.service.spec.predictor.warmup else ""
        return f"Revision {decision.wanted} is the first: it gets requests when {pods} ready{warm}."
    if track.deployment(decision.wanted) is None:
        return f"Revision {decision.wanted} is the first: requests reach it as its pods become ready."
    return f"Revision {decision.wanted} stays the one that serves: no pod is restarted."


def _stages(track: Track, decision: Decision) -> tuple[Stage, ...]:
    """The steps of the rollout; of the next one, where none is under way."""
    service, state = track.service, decision.rollout
    router = router_of(service)
    capacity = state.capacity if state is not None else least_replicas(service)
    at = state.step if state is not None and not decision.failed else -1
    warms = service.spec.predictor.warmup is not None
    strategy = strategy_of(state, service.spec.rollout)
    compares = find_parity_gate(strategy.gates(service.spec.rollout)) is not None
    steps = state.steps if state is not None else ()
    found = []
    for number, step in enumerate(steps or strategy.steps(service.spec.rollout)):
        pods = router.pods(step.weight, capacity) if step.weight is not None else None
        progress = "passed" if number < at else "now" if number == at else ""
        found.append(
            Stage(number, step_words(step), pods, _waits(step, pods, warms=warms, compares=compares), progress)
        )
        if pods is not None:  # before the first share, and once
            warms = compares = False
    return tuple(found)


def _waits(step: StepInForce, pods: int | None, *, warms: bool, compares: bool) -> str:
    """What a step waits for, in words."""
    if step.pause is not None:
        return "until somebody promotes it" if step.pause_seconds is None else f"for {step.pause}"
    if pods is None:
        return f"for {step.analysis}, and until every gate has passed"
    warm = ", its warm-up is over" if warms else ""
    warm += ", its answers agree with the stable revision's" if compares else ""
    ready = "1 pod of it is ready" if pods == 1 else f"{pods} pods of it are ready"
    return f"until {ready}{warm}, and the traffic follows"
