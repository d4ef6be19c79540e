"""The rollout: the revision that the spec asks for comes up beside the one that serves, then takes over.

All at once: the candidate gets no request until it can carry what the stable one carries.
The stable one keeps its pods until the world shows that the requests have moved.
"""

from dataclasses import dataclass
from typing import Final

from conch.api import ConditionType, InferenceService, Phase, RevisionStatus
from conch.decide.naming import revision_name
from conch.decide.times import parse_time
from conch.observe import Pod, World
from conch_contract import ModelState

# How often pods that are not ready yet are asked, in seconds: first, and at the most.
ASK_FIRST: Final = 1.0
ASK_LIMIT: Final = 8.0
# How long pods that are ready are asked what they serve, when a network policy lets nobody ask.
ASK_PATIENCE: Final = 60.0


@dataclass(frozen=True)
class Living:
    """A revision that has pods, and how many it must not fall under."""

    name: str
    floor: int


@dataclass(frozen=True)
class Decision:
    """What shall be."""

    wanted: str  # the revision that the spec asks for
    serving: str  # the revision that shall get the requests
    living: tuple[Living, ...]  # the revisions that shall have pods
    needed: int  # ready pods that `wanted` needs to take over
    number: int  # of `wanted` in the history
    forgotten: frozenset[str]  # revisions that the history limit drops
    overdue: bool  # the candidate has not come up within the progress deadline
    wait: float | None  # seconds after which to look again, if nothing happens; None: events alone are awaited

    @property
    def candidate(self) -> str | None:
        """The revision on its way to serve, while another one does."""
        return None if self.wanted == self.serving else self.wanted


def decide(world: World) -> Decision:
    """Decide which revisions live and which one gets the requests."""
    service = world.service
    wanted = revision_name(service.metadata.name, service.spec.predictor)
    stable = _stable(world, wanted)
    needed = _needed(world, stable)
    comes = stable != wanted
    serving = wanted if not comes or world.ready(wanted) >= needed else stable
    # The old one lives until the world shows that requests have moved; then its pods may go.
    living = [Living(wanted, needed if comes else floor_of(service))]
    if comes:
        kept = floor_of(service) if service.spec.predictor.scales else max(world.replicas(stable), 1)
        living.append(Living(stable, kept))
    up = _all_up(world, wanted)
    said = service.status.revision(wanted)
    settled = not comes and up and said is not None and _told(world, said)
    age = _age(world, wanted)
    overdue = not _rolled_out(world, wanted) and age > service.spec.rollout.progress_deadline_seconds
    names = frozenset(one.name for one in living)
    return Decision(
        wanted=wanted,
        serving=serving,
        living=tuple(living),
        needed=needed,
        number=_number(world, wanted),
        forgotten=_forgotten(world, names, service.spec.rollout.history_limit),
        overdue=overdue,
        wait=None if settled else ASK_LIMIT if up else min(max(ASK_FIRST, age / 10), ASK_LIMIT),
    )


def pods_to_ask(world: World) -> tuple[Pod, ...]:
    """Return the pods whose agents know something that the status does not: a settled fleet is left alone."""
    told = {revision.name: _told(world, revision) for revision in world.service.status.revisions}
    return tuple(
        pod for pod in world.pods if pod.ip and not pod.leaving and (not pod.ready or not told.get(pod.revision, False))
    )


def floor_of(service: InferenceService) -> int:
    """The least replicas that the user allows."""
    return service.spec.predictor.min_replicas


def ceiling_of(service: InferenceService) -> int:
    """The most replicas that the user allows; absent means as many as the least."""
    predictor = service.spec.predictor
    return predictor.max_replicas or predictor.min_replicas


def _stable(world: World, wanted: str) -> str:
    """The revision that serves now: the one requests go to; if nobody knows, the one the status names."""
    for name in (world.routed, world.service.status.stable):
        if name and world.deployment(name) is not None:
            return name
    return wanted


def _needed(world: World, stable: str) -> int:
    """Ready pods that let a revision take over: the user's floor, and what the stable one carries now.

    >>> # floor 1, ceiling 8, stable has 5 ready: the candidate needs 5
    >>> # floor 1, ceiling 3, stable has 5 ready: the ceiling was lowered, 3 will do
    """
    carried = min(world.ready(stable), ceiling_of(world.service))
    return max(floor_of(world.service), carried, 1)


def _all_up(world: World, name: str) -> bool:
    """Whether a revision has all the pods that its Deployment wants, and all are ready."""
    pods = world.pods_of(name)
    return len(pods) >= world.replicas(name) > 0 and all(pod.ready for pod in pods)


def _told(world: World, revision: RevisionStatus) -> bool:
    """Whether the status says of every model what was fetched and that it is up; silence counts in the end."""
    if revision.models and all(model.digest and model.state == ModelState.READY for model in revision.models):
        return True
    up = revision.phase == Phase.READY and revision.since is not None
    return up and world.now - parse_time(revision.since or "") > ASK_PATIENCE


def _rolled_out(world: World, wanted: str) -> bool:
    """Whether a revision has served before: lost pods are then not a late rollout."""
    status = world.service.status
    complete = status.condition(ConditionType.ROLLOUT_COMPLETE)
    return status.stable == wanted and complete is not None and complete.status == "True"


def _age(world: World, name: str) -> float:
    """Seconds since a revision's Deployment was made; 0 before that."""
    deployment = world.deployment(name)
    return max(0.0, world.now - parse_time(deployment["metadata"]["creationTimestamp"])) if deployment else 0.0


def _number(world: World, wanted: str) -> int:
    """The wanted revision's place in the history: the newest, also when it returns from the past."""
    newest = max((revision.number for revision in world.revisions.values()), default=0)
    known = world.revisions.get(wanted)
    return newest if known is not None and known.number == newest else newest + 1


def _forgotten(world: World, living: frozenset[str], limit: int) -> frozenset[str]:
    """Revisions past the history limit, oldest first; the living do not count."""
    past = sorted(
        (r for r in world.revisions.values() if r.name not in living),
        key=lambda r: r.number,
        reverse=True,
    )
    return frozenset(revision.name for revision in past[limit:])
