"""Which workloads a track has, and how many pods at the least."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from conch.decide.context import RolloutContext, least_replicas
from conch.decide.scale_to_zero import may_scale_to_zero
from conch.decide.state import RolloutState
from conch.decide.strategies import strategy_of
from conch.decide.swap import stays_in_place
from conch.observe import Pod, Track
from conch.traffic import still_reached


@dataclass(frozen=True)
class Workload:
    """Pods: a Deployment with its ConfigMap, disruption budget and autoscaler.

    A revision is content: models, their configuration and a pod template.

    Attributes:
        name: Name of its objects, and of the revision whose pod template its pods have.
        revisions: Names of the revisions that its pods serve: one, or two that a Swap exchanges.
        main: The one that pods serve to which none is assigned.
        minimum: Of its replicas; 0: it is drained, and gets pods again if need be.
        may_scale_to_zero: Whether it may be without pods while no trigger is active.
        selecting_all: Revisions whose Services select all its pods, whatever their label.
        is_in_place: Whether its pods serve while they change their revision.
    """

    name: str
    revisions: tuple[str, ...]
    main: str
    minimum: int
    may_scale_to_zero: bool = False
    selecting_all: frozenset[str] = frozenset()
    is_in_place: bool = False


def list_workloads(
    context: RolloutContext, state: RolloutState | None, needed: int, serving: str
) -> tuple[Workload, ...]:
    """Return the workloads, the one of the wanted revision first.

    Args:
        context: the wanted and the stable revision.
        state: of the rollout; None: there is none.
        needed: ready pods that the wanted revision needs now.
        serving: the revision that carries the service.
    """
    track = context.track
    if state is None:
        minimums = {context.wanted: max(least_replicas(context.service), _count_kept(track, context.wanted))}
    else:
        minimums = dict(strategy_of(state, context.service.spec.rollout).replicas(context, state, needed))
    # A revision that a request may still reach keeps its pods until the traffic has left it.
    reached = context.traffic.reachable | still_reached(track)
    for name in sorted(reached - minimums.keys()):
        if track.is_known(name):
            minimums[name] = max(track.replicas(track.workload_of(name)), 1)
    revisions: dict[str, list[str]] = {}
    for name in minimums:
        revisions.setdefault(find_workload(context, state, name), []).append(name)
    is_shared, found = state is not None and state.is_under_way, list[Workload]()
    for workload, served in revisions.items():
        main = serving if serving in served else served[0]
        new = Workload(
            name=workload,
            revisions=tuple(served),
            main=main,
            minimum=max(minimums[name] for name in served),
            may_scale_to_zero=all(may_scale_to_zero(track, state, name) for name in served),
            is_in_place=_is_in_place(context, state, workload, main),
        )
        selecting_all = _find_selecting_all(track, new, reached, is_shared=is_shared and len(served) > 1)
        found.append(replace(new, selecting_all=selecting_all))
    return tuple(found)


def _count_kept(track: Track, revision: str) -> int:
    """Return the replicas of a workload while one of its pods is ready, and leaves or has left its Services; else 0.

    With fewer, its ReplicaSet might end the pods that serve in place of that one.
    """
    workload = track.workload_of(revision)
    pods = (pod for pod in track.pods_in(workload) if pod.is_up and not pod.is_in_place)
    return track.replicas(workload) if any(pod.is_changing or pod.revision != revision for pod in pods) else 0


def _is_in_place(context: RolloutContext, state: RolloutState | None, workload: str, main: str) -> bool:
    """Return whether the pods of a workload serve while they change to the candidate, or back to `main`."""
    pods = context.track.pods_in(workload)
    if any(pod.is_in_place for pod in pods) or stays_in_place(context.track, pods, main):
        return True
    strategy = strategy_of(state, context.service.spec.rollout) if state is not None else None
    return strategy is not None and strategy.is_in_place and find_workload(context, state, context.wanted) == workload


def _find_selecting_all(
    track: Track, workload: Workload, reached: Collection[str], *, is_shared: bool
) -> frozenset[str]:
    """Return the revisions whose Services select all pods of a workload, whatever their label.

    - All of them, while its pods serve as they change.
    - After a Swap the main one, which all pods serve; new ones have the label of the template, that of an earlier
      revision. If pods are shared with a candidate, labels count as soon as each pod has one, before the first changes.
    - One whose Service selects them so far, that requests may still reach, and that no pod serves any more: the gateway
      has not taken up the route that left it.
    """
    if workload.is_in_place:
        return frozenset(workload.revisions)
    pods = track.pods_in(workload.name)
    serve_main = all(pod.revision == workload.main and not pod.is_changing for pod in pods)
    is_swapped = workload.name != workload.main and serve_main and (not is_shared or has_new_pods(pods))
    left = (set(workload.revisions) & set(reached)) - {pod.serves for pod in pods if pod.is_up}
    kept = {name for name in left if track.selected_workload(name) == workload.name}
    return frozenset({workload.main, *kept} if is_swapped else kept)


def has_new_pods(pods: Iterable[Pod]) -> bool:
    """Return whether pods serve whose label does not have their revision yet."""
    return any(pod.is_up and pod.label != pod.revision and not pod.is_changing for pod in pods)


def find_workload(context: RolloutContext, state: RolloutState | None, revision: str) -> str:
    """Return the workload whose pods serve a revision. That of a candidate follows from the strategy in force."""
    if state is None or revision != context.wanted:
        return context.track.workload_of(revision)
    strategy = strategy_of(state, context.service.spec.rollout)
    return context.track.workload_of(context.stable) if strategy.shares_pods else revision
