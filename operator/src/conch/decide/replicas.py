"""Which revisions shall have pods, and how many at the least."""

from dataclasses import dataclass, replace

from conch.api import Admission, InferenceService, RolloutPhase, RolloutStatus
from conch.decide.scale_to_zero import has_answered, may_rest
from conch.decide.steps import going
from conch.observe import Snapshot
from conch.traffic import InForce, TrafficRouter, still_reached


@dataclass(frozen=True)
class Living:
    """A revision that has pods, and how many it must not fall under; 0: it is drained, and comes back if need be."""

    name: str
    floor: int
    rests: bool = False  # whether it may have none at all, while nothing asks for it


@dataclass(frozen=True)
class Change:
    """What every question below is about: a revision that is wanted, where another may still serve."""

    snapshot: Snapshot
    router: TrafficRouter
    in_force: InForce
    wanted: str
    stable: str

    @property
    def service(self) -> InferenceService:
        return self.snapshot.service

    def going(self, memory: RolloutStatus) -> "Change":
        """The same, of a service whose spec says how this rollout goes: it may be another way than the user's."""
        spec = self.service.spec
        goes = going(spec.rollout, memory, alone=not has_answered(self.snapshot, self.stable))
        if goes is spec.rollout:
            return self
        service = self.service.model_copy(update={"spec": spec.model_copy(update={"rollout": goes})})
        return replace(self, snapshot=replace(self.snapshot, service=service))


def floor_of(service: InferenceService) -> int:
    """The least replicas that the user allows a revision that is awake."""
    return max(service.spec.predictor.min_replicas, 1)


def ceiling_of(service: InferenceService) -> int:
    """The most replicas that the user allows; absent means as many as the least."""
    predictor = service.spec.predictor
    return predictor.max_replicas or predictor.min_replicas


def living_of(change: Change, memory: RolloutStatus | None, needed: int) -> tuple[Living, ...]:
    """The revisions that shall have pods, the wanted one first."""
    snapshot, floor = change.snapshot, floor_of(change.service)
    if memory is None:
        chosen = {change.wanted: floor}
    elif drains(change.service):
        chosen = _one_after_the_other(change, memory, needed)
    elif memory.phase == RolloutPhase.FAILED or memory.admission == Admission.PENDING:
        chosen = {change.stable: floor}  # nothing is under way: it follows the spec, and its autoscaler
    else:
        scales, there = change.service.spec.predictor.scales, snapshot.replicas(change.stable)
        # A higher minReplicas applies to the candidate alone, until the candidate has requests or is paused.
        follows = memory.weight > 0 or memory.phase == RolloutPhase.PAUSED
        kept = max(floor, memory.capacity) if scales else max(there, floor) if follows else there or floor
        chosen = {change.wanted: needed, change.stable: kept}
    # What a request may still reach keeps its pods until the traffic has left it.
    for name in sorted((change.in_force.reachable | still_reached(snapshot)) - chosen.keys()):
        if snapshot.is_known(name):
            chosen[name] = max(snapshot.replicas(name), 1)
    return tuple(Living(name, pods, may_rest(snapshot, memory, name)) for name, pods in chosen.items())


def _one_after_the_other(change: Change, memory: RolloutStatus, needed: int) -> dict[str, int]:
    """Recreate: the pods of one revision are gone before those of the other start."""
    stable, wanted = change.stable, change.wanted
    if memory.phase == RolloutPhase.FAILED:
        return {stable: 0 if _has_pods(change.snapshot, wanted) else floor_of(change.service)}
    if _has_pods(change.snapshot, stable) and change.snapshot.deployment(wanted) is None:
        return {stable: 0}
    return {wanted: needed, stable: 0}


def _has_pods(snapshot: Snapshot, revision: str) -> bool:
    """Whether a revision has pods, those that leave included: they hold what the node has given them."""
    return any(pod.revision == revision for pod in snapshot.pods)


def drains(service: InferenceService) -> bool:
    """Whether the old pods end before the new ones start."""
    return service.spec.rollout.strategy == "Recreate"
