"""The rollout: the revision that the spec asks for comes up beside the one that serves, and takes over by steps.

The stable revision keeps its full capacity until the rollout is over, so that going back starts nothing.
A revision keeps its pods as long as a request may reach it.
"""

from dataclasses import dataclass

from conch.api import ConditionType, RolloutState, RolloutStatus
from conch.api.analysis import GateStatus, named
from conch.api.times import parse_time
from conch.decide.admission import awaits, entered, judged
from conch.decide.budget import each_of
from conch.decide.diagnosis import crash_loop, find_unlisted_pod, not_answering, trouble
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
from conch.observe import Trouble, World
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
        return self.rollout is not None and self.rollout.state == RolloutState.FAILED


def decide_one(world: World) -> Decision:
    """Decide, for the predictor or one variant, which revisions live and how its requests are shared out."""
    change = _change(world)
    memory, told = _begun(change), ""
    if memory is not None:
        judgement = judged(change, memory, world.capacity)
        memory, told = memory.model_copy(update={"room": judgement.room}), judgement.told
        change = change.going(memory)
        memory = _moved_on(change, memory, judgement.waits)
    world, service, wanted = change.world, change.service, change.wanted
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
        number=number_of(world, wanted),
        forgotten=forgotten(world, names | {wanted}, service.spec.rollout.history_limit),
        overdue=memory is None and _overdue(world, wanted),
        admitted=_served_before(world) or (world.ready(wanted) >= needed and warmup_waits(world, wanted) is None),
        wait=next_look(world, memory, wanted),
    )


def asks_for_room(world: World) -> bool:
    """Whether a rollout waits to know what GPUs there are. Only one whose pods ask for some does."""
    tracks = (track for track in world.tracks if each_of(track.service))
    return any(memory is not None and awaits(memory) for memory in map(_begun, map(_change, tracks)))


def _change(world: World) -> Change:
    service = world.service
    wanted = revision_name(service.track, service.spec.predictor)
    router = router_of(service)
    return Change(world, router, router.in_force(world), wanted, _stable(world, wanted))


def _stable(world: World, wanted: str) -> str:
    """The revision that carries the service: the one the root Service names, or else the status.

    The root Service is written before the status, so it comes first, unless its annotation was edited.
    """
    if not _served_before(world):
        return wanted
    named_by = (world.routed, world.service.status.stable)
    for name in named_by if wrote_stable(world) else reversed(named_by):
        if name and world.is_known(name):
            return name
    return wanted


def _served_before(world: World) -> bool:
    """Whether requests had an answer before: of a variant this is not known until its first revision is up."""
    return not world.service.variant or bool(world.service.status.stable)


def _begun(change: Change) -> RolloutStatus | None:
    """Return the memory of the rollout as the world finds it, begun if need be; None: there is nothing to roll out."""
    world, service, wanted = change.world, change.service, change.wanted
    if change.stable == wanted:
        return None
    memory, carried = service.status.rollout, _carried(world, change.stable)
    if memory is None or memory.revision != wanted:
        memory = begin(wanted, carried, world.now)
    memory = again(memory, Request.of(service), world.now)
    kept = memory.weight > 0 or drains(change.going(memory).service)
    capacity = max(memory.capacity, carried) if kept else carried
    return memory.model_copy(update={"capacity": capacity, "room": entered(change, memory)})


def _moved_on(change: Change, memory: RolloutStatus, room: Trouble | None) -> RolloutStatus:
    """Return the memory of the rollout, moved on by what the world shows; `room`: why its pods may not start yet."""
    world, service, stable, wanted = change.world, change.service, change.stable, change.wanted
    capacity = memory.capacity
    memory = follow_stable(
        memory, world.now, is_silent=_is_silence_awaited(change, memory), is_back=_is_stable_ready(change)
    )
    gates, parity = _evaluate_gates(change, memory), service.spec.rollout.parity
    facts = Facts(
        now=world.now,
        ready=world.ready(wanted),
        pods=lambda weight: change.router.pods(weight, capacity),
        follows=lambda weight: change.router.follows(
            change.in_force.told, split(stable, wanted, _effective_weight(change, memory, weight))
        ),
        achieved=change.in_force.achieved.get(wanted, 0),
        traffic=change.in_force.trouble,
        follower=_find_follower(change),
        down=trouble(world, wanted) or find_unlisted_pod(world, wanted),
        unavailable=not_answering(world, wanted),
        broken=warmup_failed(world, wanted) or (crash_loop(world, wanted) if memory.weight else None),
        warm=warmup_waits(world, wanted) or _find_parity_wait(world, wanted, find_parity_wait(parity, gates)),
        stable_lacks=_lacks(world, stable, capacity),
        gates=gates,
        once=(parity.name or "") if parity else "",
        room=room,
        request=Request.of(service),
    )
    return advance(memory, service.spec.rollout, facts)


def _find_follower(change: Change) -> str:
    """Return what shows that a change of the shares is in force."""
    service = change.service
    return f"the EndpointSlices of Service {service.track} show" if change.router.atomic else "the gateway shows"


def _find_parity_wait(world: World, wanted: str, waits: Trouble | None) -> Trouble | None:
    """Return why the parity gate waits: a refused pod of its Job comes first."""
    return (find_refused_job(world, wanted, parity=True) or waits) if waits else None


def _lacks(world: World, stable: str, capacity: int) -> int:
    """Return how many of its pods the stable revision has lost.

    One without any protects nobody: the candidate may be what mends it. And nobody lost what was never there:
    a change that asks for more pods asks for them of the candidate.
    """
    ready = world.ready(stable)
    return max(0, min(capacity, world.replicas(stable)) - ready) if ready else 0


def _evaluate_gates(change: Change, memory: RolloutStatus) -> tuple[GateStatus, ...]:
    """Evaluate the gates; of a candidate without requests parity alone."""
    if memory.state == RolloutState.FAILED:
        return ()
    world, since = change.world, parse_time(memory.since)
    gates, unready = named(change.service.spec.rollout.analysis), _find_unready_stable(change, memory)
    report = world.parities.get(change.wanted)
    compared = [evaluate_parity(gate, report, memory, world.now, unready) for gate in gates if gate.parity]
    others = [gate for gate in gates if memory.weight and not gate.parity]
    measured = world.measured.get(change.wanted, Measured())
    evaluations = evaluate_all(others, measured, memory.gates, world.now, since)
    return (*compared, *(evaluation.status for evaluation in evaluations))


def _find_unready_stable(change: Change, memory: RolloutStatus) -> UnreadyStable | None:
    """Return why the stable revision has no ready pod; None: it has one."""
    world, stable = change.world, change.stable
    if world.ready(stable):
        return None
    why = trouble(world, stable) or not_answering(world, stable)
    return UnreadyStable(why.message, is_silence_late(memory, change.service.spec.rollout, world.now))


def _is_silence_awaited(change: Change, memory: RolloutStatus) -> bool:
    """Whether the parity gate has yet to compare with a stable revision that has no ready pod."""
    is_told = change.wanted in change.world.parities
    return is_parity_pending(change.service, memory) and not is_told and not _is_stable_ready(change)


def _is_stable_ready(change: Change) -> bool:
    return change.world.ready(change.stable) > 0


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
    over = not left and memory.state != RolloutState.FAILED
    # Where one write moves all requests, a last step of weight is over with it; an analysis behind it is not.
    if over or (memory.weight == 100 and left == (LAST,) and change.router.atomic):
        return {change.wanted: 100}, change.wanted
    return split(change.stable, change.wanted, _effective_weight(change, memory, memory.weight)), change.stable


def _effective_weight(change: Change, memory: RolloutStatus, weight: int) -> int:
    """Return the candidate's weight; where only one of the two revisions has ready pods, all requests go to it."""
    world = change.world
    lost = not world.ready(change.stable) and not may_rest(world, memory, change.stable)
    if weight and lost and world.ready(change.wanted):
        return 100
    return 0 if memory.unavailable_since is not None and not lost else weight


def _warms_up(change: Change, memory: RolloutStatus | None, needed: int) -> bool:
    """Whether the candidate has the pods for its first share, and nobody has warmed them yet."""
    if memory is None and _served_before(change.world):
        return False
    if (memory and memory.state == RolloutState.FAILED) or change.world.ready(change.wanted) < needed:
        return False
    return asks_for_warmup(change.world) and warmed(change.world, change.wanted) is None


def _compared(change: Change, memory: RolloutStatus | None, needed: int) -> str | None:
    """The stable revision, while its answers are to be compared with those of a candidate that is warm."""
    world = change.world
    if memory is None or memory.state == RolloutState.FAILED or not is_parity_pending(change.service, memory):
        return None
    up = world.ready(change.wanted) >= needed and world.ready(change.stable) > 0
    return change.stable if up and warmup_waits(world, change.wanted) is None else None


def _carried(world: World, stable: str) -> int:
    """The pods that carry all requests now, within the service's floor and ceiling.

    Of 5 ready pods of the stable revision they are 5 with a ceiling of 8, and 3 after the ceiling was lowered to 3.
    """
    return max(floor_of(world.service), min(world.ready(stable), ceiling_of(world.service)), 1)


def _needed(change: Change, memory: RolloutStatus | None) -> int:
    """Ready pods that the wanted revision needs at this moment."""
    if memory is None:
        return max(floor_of(change.service), 1)
    step = get_step(memory)
    return change.router.pods(max(memory.weight, (step.weight if step else None) or 0), memory.capacity)


def _overdue(world: World, wanted: str) -> bool:
    """Whether a revision that replaces nobody is late; one that has served before only lost its pods."""
    status = world.service.status
    complete = status.condition(ConditionType.ROLLOUT_COMPLETE)
    once = status.stable == wanted and complete is not None and complete.status == "True"
    return not once and age(world, wanted) > world.service.spec.rollout.progress_deadline_seconds
