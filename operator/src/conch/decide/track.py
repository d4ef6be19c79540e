"""The decision for one track, which is the predictor or a variant: its revisions, their pods and their weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from conch.api import ConditionType
from conch.api.names import StrategyName
from conch.decide.admission import admit, initial_admission, resources_per_pod
from conch.decide.assignments import assign_pods
from conch.decide.context import RolloutContext, least_replicas, most_replicas
from conch.decide.diagnosis import (
    crash_loop,
    diagnose_candidate,
    find_failure_in_place,
    find_waiting_model,
    not_answering,
)
from conch.decide.history import forgotten, number_of
from conch.decide.requeue import age, seconds_to_requeue
from conch.decide.rollout import (
    Observation,
    Request,
    advance,
    evaluate_gates,
    find_done,
    find_due_job,
    restart_failed,
)
from conch.decide.scale_to_zero import has_answered, may_scale_to_zero
from conch.decide.source import Sources, name_wanted
from conch.decide.state import RolloutState
from conch.decide.strategies import LAST, STRATEGIES, choose_strategy, strategy_of
from conch.decide.swap import find_swap_obstacle, swaps_in_place
from conch.decide.warmup import has_warmup, warmed, warmup_failed, warmup_waits
from conch.decide.workloads import Workload, find_workload, list_workloads
from conch.observe import Finding, Snapshot, Track
from conch.traffic import ObservedTraffic, Shares, router_of, wrote_stable
from conch_contract import JobReport
from conch_contract.revision_jobs import WARMUP, RevisionJob


@dataclass(frozen=True)
class Decision:
    """The decision for one track."""

    track: Track
    wanted: str  # the revision that the spec requests
    serving: str  # the revision that carries the service
    shares: Shares  # percent of the requests, by revision
    traffic: ObservedTraffic
    workloads: tuple[Workload, ...]
    assignments: Mapping[str, str]  # by uid, the revision that a pod has to serve; all pods of the workloads
    rollout: RolloutState | None  # under way, or failed
    needed: int  # ready pods that `wanted` needs at this moment
    budget: str  # whether its GPUs are free beside the stable revision's, in a sentence; empty: nothing was checked
    due_job: RevisionJob[JobReport] | None  # of `wanted`
    number: int  # of `wanted` in the history
    forgotten: frozenset[str]  # revisions that the history limit drops
    overdue: bool  # the first revision of all has not come up within the progress deadline
    admitted: bool  # whether requests may reach the track at all: a new variant's wait until it can answer them
    wait: float | None  # seconds until the next reconcile without an event; None: an event is awaited
    sources: Sources = field(default_factory=dict)  # listings that `wanted` is created for; empty: it is for a spec

    @property
    def candidate(self) -> str | None:
        """The wanted revision, while another one serves."""
        return None if self.failed or self.wanted == self.serving else self.wanted

    @property
    def takes_gpus(self) -> bool:
        """Whether the candidate's pods may start from now on, and the capacity that was read does not have them yet."""
        return bool(self.budget) and self.rollout is not None and not self.rollout.awaits_admission

    @property
    def failed(self) -> bool:
        """Whether the wanted revision was rolled back."""
        return self.rollout is not None and self.rollout.has_failed


def decide_track(track: Track) -> Decision:
    """Decide, for the predictor or one variant, which revisions have pods and how its requests are shared out."""
    context = _context(track)
    state, budget = _begin(context), ""
    if state is not None:
        result = admit(context, state, track.capacity)
        state, budget = replace(state, admission=result.admission), result.message
        state = _advance(context, _with_strategy(context, state), result.wait)
    wanted = context.wanted
    shares, serving = _split(context, state)
    needed = _count_needed(context, state)
    workloads = list_workloads(context, state, needed, serving)
    kept = frozenset(name for workload in workloads for name in (workload.name, *workload.revisions)) | {wanted}
    return Decision(
        track=track,
        wanted=wanted,
        serving=serving,
        shares=shares,
        traffic=context.traffic,
        workloads=workloads,
        assignments=assign_pods(context, state, workloads, needed),
        rollout=state,
        needed=needed,
        budget=budget,
        due_job=_find_due_job(context, state, needed, serving),
        number=number_of(track, wanted),
        forgotten=forgotten(track, kept, context.service.spec.rollout.history_limit),
        overdue=state is None and _is_overdue(track, wanted),
        admitted=_has_served(track) or (track.ready(wanted) >= needed and warmup_waits(track, wanted) is None),
        wait=seconds_to_requeue(track, state, wanted),
        sources=context.sources,
    )


def needs_capacity(snapshot: Snapshot) -> bool:
    """Whether the admission of a rollout needs the cluster's capacity: only if its pods request GPUs."""
    tracks = (track for track in snapshot.tracks if resources_per_pod(track.service))
    return any(state is not None and state.awaits_admission for state in map(_begin, map(_context, tracks)))


def _context(track: Track) -> RolloutContext:
    service = track.service
    wanted, sources = name_wanted(track)
    router = router_of(service)
    stable = _find_stable(track, wanted)
    obstacle, in_place = "", stable != wanted and swaps_in_place(track, stable)
    if stable != wanted and service.spec.rollout.may_swap:
        obstacle = find_swap_obstacle(track, stable)
    return RolloutContext(
        track, router, router.observe(track), wanted, stable, obstacle, swaps_in_place=in_place, sources=sources
    )


def _find_stable(track: Track, wanted: str) -> str:
    """Return the revision that carries the service: the one of the root Service, or else of the status.

    The root Service is written before the status, so it comes first, unless its annotation was edited.
    """
    if not _has_served(track):
        return wanted
    named_by = (track.routed, track.service.status.stable)
    for name in named_by if wrote_stable(track) else reversed(named_by):
        if name and track.is_known(name):
            return name
    return wanted


def _has_served(track: Track) -> bool:
    """Whether requests had an answer before: for a variant this is not known until its first revision is up."""
    return not track.service.variant or bool(track.service.status.stable)


def _begin(context: RolloutContext) -> RolloutState | None:
    """Return the state of the rollout, begun if need be; None: there is nothing to roll out."""
    track, service, wanted = context.track, context.service, context.wanted
    if context.stable == wanted:
        return None
    status, carried = service.status.rollout, _count_carrying(track, context.stable)
    if status is None or status.revision != wanted:
        state = replace(RolloutState.begin(wanted, carried, track.now), request=find_done(service))
    else:
        state = RolloutState.parse(status)
    state = _with_strategy(context, restart_failed(state, Request.of(service), track.now))
    keeps_capacity = state.weight > 0 or not strategy_of(state, service.spec.rollout).serves_both
    state = replace(state, capacity=max(state.capacity, carried) if keeps_capacity else carried)
    return replace(state, admission=initial_admission(context, state))


def _with_strategy(context: RolloutContext, state: RolloutState) -> RolloutState:
    """Return the state with its strategy. Whether a rollout is a Swap is decided when it begins, and stays so."""
    answered = has_answered(context.track, context.stable)
    rollout, has_begun = context.service.spec.rollout, bool(state.steps) and not state.awaits_admission
    if has_begun and STRATEGIES[state.strategy].shares_pods:
        return state
    if context.gave_its_name:
        name = StrategyName.SWAP_IN_PLACE if context.swaps_in_place else StrategyName.SWAP
        return replace(state, strategy=name)
    can_swap = not context.swap_obstacle and (not has_begun or not context.track.deployment(context.wanted))
    strategy = choose_strategy(
        rollout,
        state.admission,
        has_answered=answered,
        can_swap=can_swap,
        is_in_place=context.swaps_in_place,
    )
    obstacle = state.swap_obstacle if has_begun else context.swap_obstacle
    return replace(state, strategy=strategy.name, swap_obstacle=obstacle if rollout.strategy == "Swap" else "")


def _advance(context: RolloutContext, state: RolloutState, admission: Finding | None) -> RolloutState:
    """Return the state of the rollout after this snapshot; `admission`: why its pods may not start yet."""
    track, service, stable, wanted = context.track, context.service, context.stable, context.wanted
    strategy, capacity = strategy_of(state, service.spec.rollout), state.capacity
    if strategy.shares_pods and state.current_step and state.current_step.weight is not None:
        # Each pod that has come to serve the candidate is progress.
        times = (pod.up_since for pod in track.pods_of(wanted) if pod.ready)
        state = replace(state, since=max(state.since, *(time for time in times if time <= track.now), 0.0))
    state, gates = evaluate_gates(context, state)
    observation = Observation(
        now=track.now,
        ready=track.ready(wanted),
        pods=lambda weight: strategy.pods(context.router, weight, capacity),
        verify_weight=lambda weight: context.router.verify_weights(
            context.traffic.shares, split(stable, wanted, _effective_weight(context, state, weight))
        ),
        observed_weight=context.traffic.observed_weights.get(wanted, 0),
        traffic=context.traffic.obstacle,
        traffic_source=_find_traffic_source(context),
        not_ready=diagnose_candidate(track, wanted, stable if strategy.shares_pods else "")
        or find_waiting_model(track, wanted),
        not_answering=not_answering(track, wanted),
        broken=warmup_failed(track, wanted)
        or (crash_loop(track, wanted) if state.weight or strategy.is_in_place else None)
        or (find_failure_in_place(track, wanted) if strategy.is_in_place else None),
        # In place, the requests have followed the pod already.
        before_first_share=None if strategy.is_in_place else warmup_waits(track, wanted) or gates.wait,
        missing_stable_pods=_count_missing(context, state),
        gates=gates.statuses,
        once=gates.once,
        stable_waits=gates.stable_waits,
        admission=admission,
        request=Request.of(service),
    )
    return advance(state, service.spec.rollout, observation)


def _find_traffic_source(context: RolloutContext) -> str:
    """Return what shows that a change of the shares is in force."""
    track = context.service.track
    return f"the EndpointSlices of Service {track} show" if context.router.atomic else "the gateway shows"


def _count_missing(context: RolloutContext, state: RolloutState) -> int:
    """Return how many of its pods the stable revision has lost.

    One without any is no fallback: the candidate may be what mends it. And pods that never existed are not lost: a
    change that requests more pods requests them of the candidate. Nor are those that it has given to the candidate.
    """
    track, stable = context.track, context.stable
    workload, ready = track.workload_of(stable), track.ready(stable)
    given = len(track.pods_of(context.wanted)) if find_workload(context, state, context.wanted) == workload else 0
    return max(0, min(state.capacity, track.replicas(workload)) - given - ready) if ready else 0


def split(stable: str, candidate: str, weight: int) -> dict[str, int]:
    """Return the shares when the candidate gets `weight` percent.

    >>> split("a", "b", 25), split("a", "b", 0), split("a", "b", 100)
    ({'a': 75, 'b': 25}, {'a': 100}, {'b': 100})
    """
    return {name: share for name, share in ((stable, 100 - weight), (candidate, weight)) if share}


def _split(context: RolloutContext, state: RolloutState | None) -> tuple[Shares, str]:
    """Return the shares, and the revision that carries the service."""
    if state is None:
        return {context.wanted: 100}, context.wanted
    left = state.steps[state.step :]
    is_complete = not left and not state.has_failed
    # Where one write moves all requests, a last step of weight is over with it; an analysis after it is not.
    if is_complete or (state.weight == 100 and left == (LAST,) and context.router.atomic):
        return {context.wanted: 100}, context.wanted
    return split(context.stable, context.wanted, _effective_weight(context, state, state.weight)), context.stable


def _effective_weight(context: RolloutContext, state: RolloutState, weight: int) -> int:
    """Return the candidate's weight; where only one of the two revisions has ready pods, all requests go to it."""
    track, stable = context.track, context.stable
    has_lost = not track.ready(stable) and not may_scale_to_zero(track, state, stable)
    strategy = strategy_of(state, context.service.spec.rollout)
    if (weight or strategy.is_in_place) and has_lost and track.ready(context.wanted):
        return 100
    if state.unavailable_since is not None and not has_lost:
        return 0
    return _weigh_pods(track, context) if strategy.shares_pods and 0 < weight < 100 else weight


def _weigh_pods(track: Track, context: RolloutContext) -> int:
    """Return the candidate's share of the pods that both revisions share, in percent: both have some."""
    own, other = track.ready(context.wanted), track.ready(context.stable)
    return max(1, min(99, round(100 * own / max(own + other, 1))))


def _find_due_job(
    context: RolloutContext, state: RolloutState | None, needed: int, serving: str
) -> RevisionJob[JobReport] | None:
    """Return the Job that is due of a candidate with the pods for its first share: the warm-up, then those of gates.

    The first revision of the predictor gets requests as its pods become ready, so it has none.
    """
    track, wanted = context.track, context.wanted
    if track.ready(wanted) < needed or (_has_served(track) if state is None else state.has_failed):
        return None
    if state is not None and strategy_of(state, context.service.spec.rollout).is_in_place:
        return None  # its pod answers clients already
    if has_warmup(track) and warmed(track, wanted) is None:
        return WARMUP
    # A candidate that has taken over is the stable revision from the next reconcile on, without gates.
    return None if state is None or serving == wanted else find_due_job(context, state)


def _count_carrying(track: Track, stable: str) -> int:
    """Return the pods that carry all requests now, within the service's minimum and maximum.

    Of 5 ready pods of the stable revision they are 5 with a maximum of 8, and 3 after the maximum was lowered to 3.
    """
    pods = {pod.uid: pod for pod in (*track.pods_of(stable), *track.pods_in(track.workload_of(stable)))}
    ready = sum(pod.ready or (pod.is_changing and pod.is_running) for pod in pods.values())
    return max(least_replicas(track.service), min(ready, most_replicas(track.service)), 1)


def _count_needed(context: RolloutContext, state: RolloutState | None) -> int:
    """Return the ready pods that the wanted revision needs at this moment."""
    if state is None:
        return least_replicas(context.service)
    step, strategy = state.current_step, strategy_of(state, context.service.spec.rollout)
    return strategy.pods(context.router, max(state.weight, (step.weight if step else None) or 0), state.capacity)


def _is_overdue(track: Track, wanted: str) -> bool:
    """Whether a revision that replaces none is late; one that has served before only lost its pods."""
    status = track.service.status
    complete = status.condition(ConditionType.ROLLOUT_COMPLETE)
    has_completed = status.stable == wanted and complete is not None and complete.status == "True"
    return not has_completed and age(track, wanted) > track.service.spec.rollout.progress_deadline_seconds
