"""Whether a candidate's pods may start beside those that serve. Decided once a rollout, and remembered in its status.

All pods that it will need at its end are asked for, though its first steps need fewer: a rollout that gets stuck half
way is what the budget is for. A hold has no deadline. The progress deadline counts a candidate that does not come up
as failed, so that somebody looks; a held one has not been tried, what serves loses nothing by the wait, and a GPU
that comes free at night shall not find that it was given up in the evening. The status says what is missing.
"""

from dataclasses import dataclass

from conch.api import Admission, RolloutPhase, RolloutStatus
from conch.api.kinds import DEPLOYMENT
from conch.decide.budget import Budget, Holders, Need, budget, each_of
from conch.decide.replicas import Change, drains
from conch.decide.scale_to_zero import has_answered, may_rest
from conch.decide.waits import CHECKING_CAPACITY, INSUFFICIENT_GPU
from conch.observe import Finding, Snapshot
from conch.observe.capacity import Capacity, Holder, asked_by_pod
from conch.traffic import still_reached


def entered(change: Change, memory: RolloutStatus) -> str:
    """Return where a rollout stands with its GPUs before anybody looks; empty: it has nothing to ask."""
    service = change.service
    if memory.phase == RolloutPhase.FAILED or memory.admission not in {"", Admission.PENDING}:
        return memory.admission
    if service.spec.rollout.on_insufficient_capacity == "Surge" or drains(service) or not each_of(service):
        return ""
    if (
        not memory.admission
        and service.spec.rollout.on_insufficient_capacity == "Recreate"
        and _drained(change, memory)
    ):
        return (
            Admission.INSUFFICIENT
        )  # an earlier candidate took the place of the stable revision's pods, and this one takes its
    # One whose pods had started before there was a budget goes on as it began.
    return "" if not memory.admission and change.snapshot.replicas(change.wanted) else Admission.PENDING.value


def with_promises(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot with GPUs set aside for the service's pods that are wanted and on no node yet.

    So its predictor and variants, which one change may concern all at once, do not each see the same free ones.
    """
    if snapshot.capacity is None:
        return snapshot
    wanted = {
        Holder(snapshot.key.namespace, ref.name): {
            resource: amount * snapshot.replicas(ref.name)
            for resource, amount in asked_by_pod(body["spec"]["template"]["spec"]).items()
        }
        for ref, body in snapshot.children.items()
        if ref.kind == DEPLOYMENT
    }
    return snapshot.with_capacity(snapshot.capacity.promising(wanted))


def awaits(memory: RolloutStatus) -> bool:
    """Whether a rollout has no pods before it is known that they fit."""
    return memory.admission == Admission.PENDING and memory.phase != RolloutPhase.FAILED


@dataclass(frozen=True)
class Judged:
    """What is decided of a rollout's room, what it still waits for, and the sum in a sentence."""

    admission: str
    waits: Finding | None = None
    told: str = ""  # empty: there was nothing to judge


def judged(change: Change, memory: RolloutStatus, capacity: Capacity | None) -> Judged:
    """Return what is decided of a rollout's room.

    Args:
        change: the candidate and the revision that serves.
        memory: of the rollout, with its capacity.
        capacity: what the cluster has left; None: nobody has told yet.
    """
    if not awaits(memory):
        return Judged(memory.admission)
    service = change.service
    pods = change.router.pods(100, memory.capacity)
    need = Need(change.wanted, pods, each_of(service), service.spec.predictor.pod)
    if _drained(change, memory):
        capacity = None  # its pods come back first, and then it is seen what is left
    if capacity is None and memory.reason == INSUFFICIENT_GPU:
        return _wait(memory.message)  # nothing new is known, such as after a restart of the operator
    if capacity is None:
        told = f"{_needs(need)}; it is being asked what the nodes have left."
        return Judged(memory.admission, Finding(CHECKING_CAPACITY, told), told)
    if capacity.unknown:
        return Judged(Admission.UNKNOWN, told=f"{_needs(need)}; nobody can tell whether they fit: {capacity.unknown}.")
    left = budget(need, capacity)
    if left.fits >= need.pods:
        return Judged(Admission.ADMITTED, told=f"{_needs(need)}; {left.told}.")
    return _short(change, need, left, capacity)


def _short(change: Change, need: Need, left: Budget, capacity: Capacity) -> Judged:
    """Return what comes of a rollout whose pods do not fit beside what there is."""
    told, leaving = f"{_needs(need)}; {left.told}", _leaving(change)
    ended = f"{told}: the pods of {change.stable} end first."
    if not has_answered(change.snapshot, change.stable):
        return Judged(Admission.INSUFFICIENT, told=ended)
    if leaving and budget(need, capacity, leaving).fits >= need.pods:
        names = " and ".join(sorted(who.revision for who in leaving))
        return _wait(f"{told}. The pods of {names} are on their way out, which makes room.")
    alone = budget(need, capacity, leaving | {_holder(change, change.stable)}).fits
    if alone < need.pods:
        return _wait(
            f"{told}, and {alone} when the pods of {change.stable} have ended: {left.remedy} or lower replicas."
        )
    if change.service.spec.rollout.on_insufficient_capacity == "Recreate":
        return Judged(Admission.INSUFFICIENT, told=ended)
    return _wait(f"{told}: {left.remedy}, lower replicas, or set rollout.onInsufficientCapacity to Recreate.")


def _wait(told: str) -> Judged:
    return Judged(Admission.PENDING, Finding(INSUFFICIENT_GPU, told), told)


def _needs(need: Need) -> str:
    return f"Revision {need.revision} needs {need}"


def _drained(change: Change, memory: RolloutStatus) -> bool:
    """Whether the stable revision has given its place to a candidate that is wanted no more; one may also sleep."""
    snapshot, stable = change.snapshot, change.stable
    if snapshot.deployment(stable) is None:
        return False  # it was deleted, and is created again
    return not snapshot.replicas(stable) and not may_rest(snapshot, memory, stable)


def _leaving(change: Change) -> Holders:
    """The service's revisions whose pods are on their way out, and hold GPUs until they are gone."""
    stay = {change.stable} | change.in_force.reachable | still_reached(change.snapshot)
    return frozenset(_holder(change, pod.revision) for pod in change.snapshot.pods if pod.revision not in stay)


def _holder(change: Change, revision: str) -> Holder:
    return Holder(change.service.metadata.namespace, revision)
