"""The rollout: the revision that the spec asks for comes up beside the one that serves, and takes over by steps.

The stable revision keeps its full capacity until the rollout is over, so that going back starts nothing.
A revision keeps its pods as long as a request may reach it.
"""

from dataclasses import dataclass

from conch.api import ConditionType, RolloutPhase, RolloutStatus
from conch.api.analysis import GateStatus, named
from conch.api.times import parse_time
from conch.decide.admission import awaits, entered, judged
from conch.decide.budget import each_of
from conch.decide.diagnosis import crash_loop, diagnose, find_unlisted_pod, not_answering
from conch.decide.gates import (
    UnreadyStable,
    evaluate_all,
    evaluate_parity,
    find_parity_wait,
    is_parity_pending,
)
from conch.decide.history import forgotten, number_of
from conch.decide.naming import revision_name
from conch.decide.replicas import Change, Living, ceiling_of, drains, floor_of, living_of
from conch.decide.request import Request
from conch.decide.requeue import age, next_look
from conch.decide.scale_to_zero import may_rest
from conch.decide.steps import LAST, Facts, advance, again, begin
from conch.decide.waits import follow_stable, get_step, is_silence_late
from conch.decide.warm import asks_for_warmup, find_refused_job, warmed, warmup_failed, warmup_waits
from conch.observe import Finding, Snapshot
from conch.observe.measured import Measured
from conch.traffic import InForce, Shares, router_of, wrote_stable


@dataclass(frozen=True)
class Decision:
    """What shall be, of the predictor or of one variant."""

    wanted: str  # the revision that the spec asks for
    serving: str  # the revision that carries the service
    shares: Shares  # percent of the requests, by revision
    in_force: InForce  # what of an earlier decision the traffic shows
    living: tuple[Living, ...]  # the revisions that shall have pods
    rollout: RolloutStatus | None  # what is remembered of the rollout under way, or of the one that failed
    needed: int  # ready pods that `wanted` needs at this moment
    budget: str  # whether its pods fit beside those that serve, in a sentence; empty: there was nothing to judge
    warmup: bool  # whether the warm-up of `wanted` shall begin, if it has not
    compared: str | None  # the revision with which the answers of `wanted` shall be compared, if they are not
    number: int  # of `wanted` in the history
    forgotten: frozenset[str]  # revisions that the history limit drops
    overdue: bool  # the first revision of all has not come up within the progress deadline
    admitted: bool  # whether requests may reach it at all: a new variant's wait until it can answer them
    wait: float | None  # seconds after which to look again, if nothing happens; None: events alone are awaited

    @property
    def candidate(self) -> str | None:
        """The revision on its way to serve, while another one does."""
        return None if self.failed or self.wanted == self.serving else self.wanted

    @property
    def takes_gpus(self) -> bool:
        """Whether its pods may start from this look on, and no look at the nodes has seen them."""
        return bool(self.budget) and self.rollout is not None and not awaits(self.rollout)

    @property
    def failed(self) -> bool:
        """Whether the revision that the spec asks for is refused, because it failed."""
        return self.rollout is not None and self.rollout.phase == RolloutPhase.FAILED


def decide_one(snapshot: Snapshot) -> Decision:
    """Decide, for the predictor or one variant, which revisions live and how its requests are shared out."""
    change = _change(snapshot)
    memory, told = _begun(change), ""
    if memory is not None:
        judgement = judged(change, memory, snapshot.capacity)
        memory, told = memory.model_copy(update={"admission": judgement.admission}), judgement.told
        change = change.going(memory)
        memory = _moved_on(change, memory, judgement.waits)
    snapshot, service, wanted = change.snapshot, change.service, change.wanted
    shares, serving = _split(change, memory)
    needed = _needed(change, memory)
    living = living_of(change, memory, needed)
    names = frozenset(one.name for one in living)
    return Decision(
        wanted=wanted,
        serving=serving,
        shares=shares,
        in_force=change.in_force,
        living=living,
        rollout=memory,
        needed=needed,
        budget=told,
        warmup=_warms_up(change, memory, needed),
        compared=_compared(change, memory, needed),
        number=number_of(snapshot, wanted),
        forgotten=forgotten(snapshot, names | {wanted}, service.spec.rollout.history_limit),
        overdue=memory is None and _overdue(snapshot, wanted),
        admitted=_served_before(snapshot)
        or (snapshot.ready(wanted) >= needed and warmup_waits(snapshot, wanted) is None),
        wait=next_look(snapshot, memory, wanted),
    )


def asks_for_room(snapshot: Snapshot) -> bool:
    """Whether a rollout waits to know what GPUs there are. Only one whose pods ask for some does."""
    tracks = (track for track in snapshot.tracks if each_of(track.service))
    return any(memory is not None and awaits(memory) for memory in map(_begun, map(_change, tracks)))


def _change(snapshot: Snapshot) -> Change:
    service = snapshot.service
    wanted = revision_name(service.track, service.spec.predictor)
    router = router_of(service)
    return Change(snapshot, router, router.in_force(snapshot), wanted, _stable(snapshot, wanted))


def _stable(snapshot: Snapshot, wanted: str) -> str:
    """The revision that carries the service: the one the root Service names, or else the status.

    The root Service is written before the status, so it comes first, unless its annotation was edited.
    """
    if not _served_before(snapshot):
        return wanted
    named_by = (snapshot.routed, snapshot.service.status.stable)
    for name in named_by if wrote_stable(snapshot) else reversed(named_by):
        if name and snapshot.is_known(name):
            return name
    return wanted


def _served_before(snapshot: Snapshot) -> bool:
    """Whether requests had an answer before: of a variant this is not known until its first revision is up."""
    return not snapshot.service.variant or bool(snapshot.service.status.stable)


def _begun(change: Change) -> RolloutStatus | None:
    """Return the memory of the rollout, begun if need be; None: there is nothing to roll out."""
    snapshot, service, wanted = change.snapshot, change.service, change.wanted
    if change.stable == wanted:
        return None
    memory, carried = service.status.rollout, _carried(snapshot, change.stable)
    if memory is None or memory.revision != wanted:
        memory = begin(wanted, carried, snapshot.now)
    memory = again(memory, Request.of(service), snapshot.now)
    kept = memory.weight > 0 or drains(change.going(memory).service)
    capacity = max(memory.capacity, carried) if kept else carried
    return memory.model_copy(update={"capacity": capacity, "admission": entered(change, memory)})


def _moved_on(change: Change, memory: RolloutStatus, room: Finding | None) -> RolloutStatus:
    """Return the memory of the rollout, moved on by what the snapshot shows; `room`: why its pods may not start yet."""
    snapshot, service, stable, wanted = change.snapshot, change.service, change.stable, change.wanted
    capacity = memory.capacity
    memory = follow_stable(
        memory, snapshot.now, is_silent=_is_silence_awaited(change, memory), is_back=_is_stable_ready(change)
    )
    gates, parity = _evaluate_gates(change, memory), service.spec.rollout.parity
    facts = Facts(
        now=snapshot.now,
        ready=snapshot.ready(wanted),
        pods=lambda weight: change.router.pods(weight, capacity),
        follows=lambda weight: change.router.follows(
            change.in_force.told, split(stable, wanted, _effective_weight(change, memory, weight))
        ),
        achieved=change.in_force.achieved.get(wanted, 0),
        traffic=change.in_force.trouble,
        follower=_find_follower(change),
        down=diagnose(snapshot, wanted) or find_unlisted_pod(snapshot, wanted),
        unavailable=not_answering(snapshot, wanted),
        broken=warmup_failed(snapshot, wanted) or (crash_loop(snapshot, wanted) if memory.weight else None),
        warm=warmup_waits(snapshot, wanted) or _find_parity_wait(snapshot, wanted, find_parity_wait(parity, gates)),
        stable_lacks=_lacks(snapshot, stable, capacity),
        gates=gates,
        once=(parity.name or "") if parity else "",
        admission=room,
        request=Request.of(service),
    )
    return advance(memory, service.spec.rollout, facts)


def _find_follower(change: Change) -> str:
    """Return what shows that a change of the shares is in force."""
    service = change.service
    return f"the EndpointSlices of Service {service.track} show" if change.router.atomic else "the gateway shows"


def _find_parity_wait(snapshot: Snapshot, wanted: str, waits: Finding | None) -> Finding | None:
    """Return why the parity gate waits: a refused pod of its Job comes first."""
    return (find_refused_job(snapshot, wanted, parity=True) or waits) if waits else None


def _lacks(snapshot: Snapshot, stable: str, capacity: int) -> int:
    """Return how many of its pods the stable revision has lost.

    One without any protects nobody: the candidate may be what mends it. And nobody lost what was never there:
    a change that asks for more pods asks for them of the candidate.
    """
    ready = snapshot.ready(stable)
    return max(0, min(capacity, snapshot.replicas(stable)) - ready) if ready else 0


def _evaluate_gates(change: Change, memory: RolloutStatus) -> tuple[GateStatus, ...]:
    """Evaluate the gates; of a candidate without requests parity alone."""
    if memory.phase == RolloutPhase.FAILED:
        return ()
    snapshot, since = change.snapshot, parse_time(memory.since)
    gates, unready = named(change.service.spec.rollout.analysis), _find_unready_stable(change, memory)
    report = snapshot.parities.get(change.wanted)
    compared = [evaluate_parity(gate, report, memory, snapshot.now, unready) for gate in gates if gate.parity]
    others = [gate for gate in gates if memory.weight and not gate.parity]
    measured = snapshot.measured.get(change.wanted, Measured())
    evaluations = evaluate_all(others, measured, memory.gates, snapshot.now, since)
    return (*compared, *(evaluation.status for evaluation in evaluations))


def _find_unready_stable(change: Change, memory: RolloutStatus) -> UnreadyStable | None:
    """Return why the stable revision has no ready pod; None: it has one."""
    snapshot, stable = change.snapshot, change.stable
    if snapshot.ready(stable):
        return None
    why = diagnose(snapshot, stable) or not_answering(snapshot, stable)
    return UnreadyStable(why.message, is_silence_late(memory, change.service.spec.rollout, snapshot.now))


def _is_silence_awaited(change: Change, memory: RolloutStatus) -> bool:
    """Whether the parity gate has yet to compare with a stable revision that has no ready pod."""
    is_told = change.wanted in change.snapshot.parities
    return is_parity_pending(change.service, memory) and not is_told and not _is_stable_ready(change)


def _is_stable_ready(change: Change) -> bool:
    return change.snapshot.ready(change.stable) > 0


def split(stable: str, candidate: str, weight: int) -> dict[str, int]:
    """Return the shares when the candidate gets `weight` percent.

    >>> split("a", "b", 25), split("a", "b", 0), split("a", "b", 100)
    ({'a': 75, 'b': 25}, {'a': 100}, {'b': 100})
    """
    return {name: share for name, share in ((stable, 100 - weight), (candidate, weight)) if share}


def _split(change: Change, memory: RolloutStatus | None) -> tuple[Shares, str]:
    """The shares, and the revision that carries the service."""
    if memory is None:
        return {change.wanted: 100}, change.wanted
    left = memory.steps[memory.step :]
    over = not left and memory.phase != RolloutPhase.FAILED
    # Where one write moves all requests, a last step of weight is over with it; an analysis behind it is not.
    if over or (memory.weight == 100 and left == (LAST,) and change.router.atomic):
        return {change.wanted: 100}, change.wanted
    return split(change.stable, change.wanted, _effective_weight(change, memory, memory.weight)), change.stable


def _effective_weight(change: Change, memory: RolloutStatus, weight: int) -> int:
    """Return the candidate's weight; where only one of the two revisions has ready pods, all requests go to it."""
    snapshot = change.snapshot
    lost = not snapshot.ready(change.stable) and not may_rest(snapshot, memory, change.stable)
    if weight and lost and snapshot.ready(change.wanted):
        return 100
    return 0 if memory.unavailable_since is not None and not lost else weight


def _warms_up(change: Change, memory: RolloutStatus | None, needed: int) -> bool:
    """Whether the candidate has the pods for its first share, and nobody has warmed them yet."""
    if memory is None and _served_before(change.snapshot):
        return False
    if (memory and memory.phase == RolloutPhase.FAILED) or change.snapshot.ready(change.wanted) < needed:
        return False
    return asks_for_warmup(change.snapshot) and warmed(change.snapshot, change.wanted) is None


def _compared(change: Change, memory: RolloutStatus | None, needed: int) -> str | None:
    """The stable revision, while its answers are to be compared with those of a candidate that is warm."""
    snapshot = change.snapshot
    if memory is None or memory.phase == RolloutPhase.FAILED or not is_parity_pending(change.service, memory):
        return None
    up = snapshot.ready(change.wanted) >= needed and snapshot.ready(change.stable) > 0
    return change.stable if up and warmup_waits(snapshot, change.wanted) is None else None


def _carried(snapshot: Snapshot, stable: str) -> int:
    """The pods that carry all requests now, within the service's floor and ceiling.

    Of 5 ready pods of the stable revision they are 5 with a ceiling of 8, and 3 after the ceiling was lowered to 3.
    """
    return max(floor_of(snapshot.service), min(snapshot.ready(stable), ceiling_of(snapshot.service)), 1)


def _needed(change: Change, memory: RolloutStatus | None) -> int:
    """Ready pods that the wanted revision needs at this moment."""
    if memory is None:
        return max(floor_of(change.service), 1)
    step = get_step(memory)
    return change.router.pods(max(memory.weight, (step.weight if step else None) or 0), memory.capacity)


def _overdue(snapshot: Snapshot, wanted: str) -> bool:
    """Whether a revision that replaces nobody is late; one that has served before only lost its pods."""
    status = snapshot.service.status
    complete = status.condition(ConditionType.ROLLOUT_COMPLETE)
    once = status.stable == wanted and complete is not None and complete.status == "True"
    return not once and age(snapshot, wanted) > snapshot.service.spec.rollout.progress_deadline_seconds
