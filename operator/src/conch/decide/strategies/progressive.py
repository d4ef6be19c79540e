"""Progressive: the candidate comes up beside the stable revision, and gets the requests step by step.

The stable revision keeps its capacity until the rollout is over, so that a rollback starts no pod.
"""

from collections.abc import Mapping

from conch.api import Rollout, RolloutPhase, StepInForce
from conch.api.analysis import Gate, named
from conch.api.names import StrategyName
from conch.decide.context import RolloutContext, least_replicas
from conch.decide.state import RolloutState
from conch.decide.strategies.strategy import LAST, WithPods


class Progressive(WithPods):
    """The steps and gates of the spec."""

    name = StrategyName.PROGRESSIVE
    serves_both = True

    def steps(self, rollout: Rollout) -> tuple[StepInForce, ...]:
        """Return the steps of the spec; the last of them gives the candidate all requests.

        >>> rollout = Rollout.model_validate({"steps": [{"weight": 100}, {"pause": "1m"}]})
        >>> [step.to_wire() for step in Progressive().steps(rollout)]
        [{'weight': 100}, {'pause': '1m'}, {'weight': 100}]
        """
        steps = tuple(StepInForce(weight=s.weight, pause=s.pause, analysis=s.analysis) for s in rollout.steps)
        return steps if steps[-1:] == (LAST,) else (*steps, LAST)

    def gates(self, rollout: Rollout) -> tuple[Gate, ...]:
        """Return the gates of the spec."""
        return named(rollout.analysis)

    def replicas(self, context: RolloutContext, state: RolloutState, needed: int) -> Mapping[str, int]:
        """Return the replicas of the candidate and of the stable revision; of the latter alone after a failure."""
        service, least = context.service, least_replicas(context.service)
        if state.has_failed or state.awaits_admission:
            return {context.stable: least}  # the stable revision follows the spec, and its autoscaler
        current = context.track.replicas(context.track.workload_of(context.stable))
        if service.spec.predictor.scales:
            kept = max(least, state.capacity)
        elif state.weight > 0 or state.phase == RolloutPhase.PAUSED:
            kept = max(current, least)
        else:  # a higher minReplicas applies to the candidate alone, until the candidate has requests or is paused
            kept = current or least
        return {context.wanted: needed, context.stable: kept}
