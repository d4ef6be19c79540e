"""Preview of a manifest: the operator's pure packages, applied to values. No calls, no clock.

It is the operator's next reconcile: observe, decide, desire, plan and build_status are the functions that the operator
runs, but without reports of agents and without metrics. Later reconciles depend on pods and traffic; the preview has
the steps of the rollout instead.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from conch.api import Admission, ConfigValue, InferenceService, StepInForce
from conch.api.kinds import ServiceKey
from conch.api.metrics import MetricsApi
from conch.api.names import StrategyName
from conch.cli.actions import format_step
from conch.cli.options import CommandError
from conch.cli.track import describe_requests
from conch.decide import Decision, build_status, decide, needs_capacity
from conch.decide.context import least_replicas
from conch.decide.gates import list_job_metrics
from conch.decide.strategies import strategy_of
from conch.desire import PodDefaults, desire
from conch.observe import Store, Track, Unreadable, observe
from conch.observe.capacity import Capacity
from conch.observe.signature_policies import find_written_policy
from conch.plan import Action, Adopt, Apply, ApplyRejected, Assign, Delete, find_unwritten, plan
from conch.traffic import router_of
from conch.triton import ConfiguredValue, list_configured_values
from conch_contract.sentences import join_words


@dataclass(frozen=True)
class PreviewWrite:
    """One write of the operator. It depends on the rows before its own only."""

    row: int
    action: str  # create, change, delete, adopt (an orphan), or hand over (a Deployment's replicas to its autoscaler)
    kind: str
    name: str
    manifest: Mapping[str, Any] | None


@dataclass(frozen=True)
class PreviewStep:
    """One step of a rollout, the ready pods that it requires, and what it waits for."""

    number: int
    step: str  # as in the manifest
    pods: int | None  # ready pods that it requires; None: as many as the step before
    waits: str
    state: str  # passed, now, or empty: to come


@dataclass(frozen=True)
class TrackPreview:
    """Preview of the predictor, or of one variant."""

    variant: str  # empty: the predictor
    requests: str  # description of the requests that a variant gets
    revision: str
    number: int
    known: bool  # whether the history has it
    serving: str | None  # the revision that serves now
    message: str
    budget: str  # the GPUs that its pods need, and whether they suffice; empty: it needs none
    steps: tuple[PreviewStep, ...]
    configured: tuple[ConfiguredValue, ...] = ()  # values of the manifest, which win over those of config.pbtxt
    in_use: Mapping[tuple[str, str], ConfigValue] = field(default_factory=dict)  # by model and field, while one serves
    warnings: tuple[tuple[str, str], ...] = ()  # reason and message, as pods of the revision reported them


@dataclass(frozen=True)
class Preview:
    """Preview of a service."""

    service: ServiceKey
    main: TrackPreview
    variants: tuple[TrackPreview, ...]  # in the spec's order
    removed_variants: tuple[str, ...]  # not in the spec any more, but some of their objects exist
    writes: tuple[PreviewWrite, ...]
    rejections: tuple[ApplyRejected, ...]
    needs_capacity: bool  # whether a rollout depends on the GPU capacity of the cluster
    conditions: tuple[tuple[str, str, str, str], ...]  # type, status, reason, message: of the next status


@dataclass(frozen=True)
class OperatorSettings:
    """The settings of the operator on which its writes depend."""

    defaults: PodDefaults
    metrics_api: MetricsApi = "builtin"
    prometheus: str = ""


def build_preview(
    bodies: Iterable[Mapping[str, Any]],
    key: ServiceKey,
    settings: OperatorSettings,
    now: float,
    capacity: Capacity | None = None,
) -> Preview:
    """Return the preview of a service and its existing objects.

    Args:
        bodies: the service as the API server would return it, and its existing children and pods.
        key: the service.
        settings: of the operator.
        now: seconds since the epoch.
        capacity: the GPU capacity of the cluster; None: not known.

    Raises:
        CommandError: the service cannot be read.
    """
    store = Store()
    for body in bodies:
        store.put(body)
    policy = find_written_policy(store.objects(key).values())  # its user may not read the namespace's own
    snapshot = observe(store, key, now, None, settings.metrics_api, prometheus=settings.prometheus, policy=policy)
    if snapshot is None:
        raise CommandError(f"{key} is being deleted; wait until it is gone, and repeat the command")
    if isinstance(snapshot, Unreadable):
        raise CommandError(snapshot.message)
    snapshot = snapshot.without_future_times()
    snapshot = snapshot.with_capacity(capacity)
    decisions = decide(snapshot)
    steps, rejections = plan(snapshot, decisions, desire(snapshot, decisions, settings.defaults))
    status = build_status(snapshot, decisions, find_unwritten(snapshot.service, rejections, {}))
    main, *variants = map(_preview_track, decisions.tracks)
    return Preview(
        service=key,
        main=main,
        variants=tuple(variants),
        removed_variants=tuple(track.service.variant for track in snapshot.removed_tracks),
        writes=tuple(_preview_write(row, action) for row, step in enumerate(steps, 1) for action in step),
        rejections=tuple(rejections),
        needs_capacity=needs_capacity(snapshot),
        conditions=tuple((c.type, c.status, c.reason, c.message) for c in status.conditions),
    )


def _preview_track(decision: Decision) -> TrackPreview:
    track = decision.track
    variant = track.service.variant_spec
    return TrackPreview(
        variant=track.service.variant,
        requests=describe_requests(variant) if variant else "",
        revision=decision.wanted,
        number=decision.number,
        known=decision.wanted in track.revisions,
        serving=track.routed,
        message=_build_message(track, decision),
        budget=decision.budget,
        steps=_preview_steps(track, decision),
        configured=list_configured_values(track.service.models),
        in_use=_list_values_in_use(track),
        warnings=_list_warnings(track, decision.wanted),
    )


def _list_values_in_use(track: Track) -> dict[tuple[str, str], ConfigValue]:
    """Return the values that Triton uses for the models of the revision that serves, as its pods report them."""
    status = track.service.status.revision(track.routed) if track.routed else None
    models = status.models if status is not None else ()
    return {(model.name, value.field): value for model in models for value in model.config}


def _list_warnings(track: Track, revision: str) -> tuple[tuple[str, str], ...]:
    """Return the warnings of a revision's models in the status; none of a revision without pods."""
    status = track.service.status.revision(revision)
    models = status.models if status is not None else ()
    return tuple((warning.reason, warning.message) for model in models for warning in model.warnings)


def _preview_write(row: int, action: Action) -> PreviewWrite:
    match action:
        case Apply(ref, manifest, new):
            return PreviewWrite(row, "create" if new else "change", ref.kind.name, ref.name, manifest)
        case Delete(ref):
            return PreviewWrite(row, "delete", ref.kind.name, ref.name, None)
        case Adopt(ref):
            return PreviewWrite(row, "adopt", ref.kind.name, ref.name, None)
        case Assign(ref, revision=revision, time=""):
            return PreviewWrite(row, f"record that it serves {revision}", ref.kind.name, ref.name, None)
        case Assign(ref, revision=revision):
            return PreviewWrite(row, f"change to {revision}", ref.kind.name, ref.name, None)
        case _:
            return PreviewWrite(row, "hand over", action.ref.kind.name, action.ref.name, action.manifest)


_ADMISSIONS: Final[dict[Admission | None, str]] = {
    Admission.PENDING: "when the GPUs suffice for its pods, by the steps below; until then they do not start.",
    Admission.INSUFFICIENT: (
        "after its pods have terminated: the GPUs do not suffice for both, and requests fail meanwhile."
    ),
}


def _build_message(track: Track, decision: Decision) -> str:
    """Return the sentence about the revision."""
    if decision.failed:
        return f"Revision {decision.wanted} has failed before and is not retried; {decision.serving} keeps serving."
    if decision.rollout is not None:
        how = _ADMISSIONS.get(decision.rollout.admission, "by the steps below.")
        if decision.rollout.strategy == StrategyName.SWAP:
            how = f"in the pods of {track.workload_of(decision.serving)}, by the steps below: no pod starts or ends."
        if decision.rollout.strategy == StrategyName.SWAP_IN_PLACE:
            how = "in its pod, which goes on to serve until it has loaded it: no pod starts or ends."
        if decision.rollout.swap_obstacle:
            how += f" Pods of its own start. {decision.rollout.swap_obstacle}"
        back = "" if decision.wanted not in track.revisions else " It is in the history: its pods are the same as then."
        return f"Revision {decision.wanted} takes over from {decision.serving} {how}{back}"
    if not decision.admitted:
        pods = "1 of its pods is" if decision.needed == 1 else f"{decision.needed} of its pods are"
        warm = " and warm" if track.service.spec.predictor.warmup or _list_warmed_models(track.service) else ""
        return f"Revision {decision.wanted} is the first: it gets requests when {pods} ready{warm}."
    if track.deployment(decision.wanted) is None:
        return f"Revision {decision.wanted} is the first: requests reach it as its pods become ready."
    return f"Revision {decision.wanted} stays the stable revision: no pod is restarted."


def _preview_steps(track: Track, decision: Decision) -> tuple[PreviewStep, ...]:
    """Return the steps of the rollout; of the next one if none is in progress."""
    service, state = track.service, decision.rollout
    router = router_of(service)
    capacity = state.capacity if state is not None else least_replicas(service)
    at = state.step if state is not None and not decision.failed else -1
    strategy = strategy_of(state, service.spec.rollout)
    conditions = ["its warm-up has completed"] if service.spec.predictor.warmup is not None else []
    if warmed := _list_warmed_models(service):
        conditions.append(f"{join_words(warmed, 'and')} {'is' if len(warmed) == 1 else 'are'} warm")
    conditions += [metric.expectation for metric in list_job_metrics(strategy.gates(service.spec.rollout))]
    steps = state.steps if state is not None else ()
    found = []
    for number, step in enumerate(steps or strategy.steps(service.spec.rollout)):
        pods = strategy.pods(router, step.weight, capacity) if step.weight is not None else None
        position = "passed" if number < at else "now" if number == at else ""
        found.append(PreviewStep(number, format_step(step), pods, _describe_wait(step, pods, conditions), position))
        if pods is not None:
            conditions = []  # only before the first weight
    return tuple(found)


def _list_warmed_models(service: InferenceService) -> list[str]:
    """Return the names of the required models that have a warm-up of their own, without which no pod is ready."""
    return [model.name for model in service.models if model.warmup is not None and model.required]


def _describe_wait(step: StepInForce, pods: int | None, conditions: Iterable[str]) -> str:
    """Return what a step waits for; of the first weight also the conditions of its warm-up and gates."""
    if step.pause is not None:
        return "until a user promotes it" if step.pause_seconds is None else f"for {step.pause}"
    if pods is None:
        return f"for {step.analysis}, and until every gate has passed"
    ready = "1 pod is ready" if pods == 1 else f"{pods} pods are ready"
    return f"until {', '.join([ready, *conditions])}, and the traffic is updated"
