"""Recreate: the pods of the stable revision end before those of the candidate start. Requests fail in between."""

from collections.abc import Mapping

from conch.api.names import StrategyName
from conch.decide.context import RolloutContext, least_replicas
from conch.decide.state import RolloutState
from conch.decide.strategies.strategy import WithoutStable, WithoutSteps, WithPods
from conch.observe import Track


class Recreate(WithoutSteps, WithoutStable, WithPods):
    """No steps, and no gate that needs the stable revision: only one revision has pods."""

    name = StrategyName.RECREATE
    serves_both = False

    def replicas(self, context: RolloutContext, state: RolloutState, needed: int) -> Mapping[str, int]:
        """Return 0 for one revision until the pods of the other have ended."""
        stable, wanted = context.stable, context.wanted
        if state.awaits_admission:
            return {stable: least_replicas(context.service)}
        if state.has_failed:
            return {stable: 0 if _has_pods(context.track, wanted) else least_replicas(context.service)}
        if _has_pods(context.track, stable) and context.track.deployment(wanted) is None:
            return {stable: 0}
        return {wanted: needed, stable: 0}


def _has_pods(track: Track, revision: str) -> bool:
    """Whether a revision has pods. Those that terminate count: they hold the node's resources until they are gone."""
    workload = track.workload_of(revision)
    return any((pod.workload or pod.revision) == workload for pod in track.pods)
