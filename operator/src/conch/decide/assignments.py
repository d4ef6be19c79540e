"""Which revision each pod of a workload has to serve."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from conch.api.reasons import Reason
from conch.decide.context import RolloutContext
from conch.decide.diagnosis import diagnose
from conch.decide.state import RolloutState
from conch.decide.strategies import strategy_of
from conch.decide.workloads import Workload, has_new_pods
from conch.observe import Pod
from conch.traffic import still_reached

_AT_ONCE: Final = 4  # a pod of so many changes its revision at a time, once the first one serves the candidate


def assign_pods(
    context: RolloutContext, state: RolloutState | None, workloads: tuple[Workload, ...], needed: int
) -> Mapping[str, str]:
    """Return the revision that each pod of the workloads has to serve, by uid.

    Args:
        context: The wanted and the stable revision.
        state: Of the rollout; None: there is none.
        workloads: Whose pods change.
        needed: The pods that the wanted revision needs now.
    """
    found, is_under_way = dict[str, str](), state is not None and state.is_under_way
    for workload in workloads:
        main, pods = workload.main, [pod for pod in context.track.pods_in(workload.name) if pod.workload]
        is_shared = is_under_way and context.wanted in workload.revisions and context.wanted != main
        candidate = context.wanted if is_shared else None
        if workload.is_in_place:
            found |= _assign_in_place(context, state, pods, main, candidate)
            continue
        reached = (context.traffic.reachable | still_reached(context.track)) & set(workload.revisions)
        if is_shared:
            reached |= {context.wanted}
        found |= _assign_one_after_another(pods, main, None if has_new_pods(pods) else candidate, needed, reached)
    return found


def _assign_in_place(
    context: RolloutContext, state: RolloutState | None, pods: Sequence[Pod], main: str, candidate: str | None
) -> dict[str, str]:
    """Return the revision of each pod of a workload whose Services select its pods, whichever revision they serve.

    What has the candidate keeps it. Under a strategy that changes a pod once it has left its Services, the others go
    back to `main` first. Otherwise those change that answer, once all have their label; one that starts serves `main`
    first, unless that fails.
    """
    is_held = state is not None and state.reason == Reason.PAUSED_BY_USER and not state.weight
    assigned = {pod.uid: main for pod in pods}
    if state is None or candidate is None or is_held:
        return assigned
    changes_in_place = strategy_of(state, context.service.spec.rollout).is_in_place and not has_new_pods(pods)
    fails = changes_in_place and diagnose(context.track, main) is not None
    own = (pod for pod in pods if pod.revision == candidate or (changes_in_place and (pod.answers or fails)))
    return assigned | dict.fromkeys((pod.uid for pod in own), candidate)


def _assign_one_after_another(
    pods: Sequence[Pod], main: str, candidate: str | None, target: int, reached: Collection[str]
) -> dict[str, str]:
    """Return the revision of each pod of a workload whose pods leave their Services before they change.

    Args:
        pods: Of the workload, without those that terminate.
        main: The revision that all others have to serve.
        candidate: The revision that some have to serve; None: there is none, or pods wait for their label.
        target: The pods that the candidate needs now. One changes first, and more at a time once it serves.
        reached: Revisions that a request may still reach. Their pods leave them for the candidate only.
    """
    assigned = {pod.uid: pod.revision if pod.revision in reached else main for pod in pods}
    if candidate is None:
        return assigned
    own = [pod for pod in pods if pod.revision == candidate]
    changing = sum(not pod.ready for pod in own)
    at_once = max(1, len(pods) // _AT_ONCE) if changing < len(own) else 1
    others = [pod for pod in pods if pod.revision != candidate and assigned[pod.uid] == main]
    # The last ready pod of the stable revision stays, and one that serves an earlier candidate is not that. Those that
    # are down may change after the others that are ready: the candidate may be what mends them.
    down = [pod for pod in others if pod.is_running and not pod.is_up]
    ready = sorted((pod for pod in others if pod.ready), key=lambda pod: pod.revision != main)
    free = [*ready[1:], *down] if any(pod.is_up for pod in others) else others
    changed = free[: max(0, min(target - len(own), at_once - changing))]
    return assigned | dict.fromkeys((pod.uid for pod in (*own, *changed)), candidate)
