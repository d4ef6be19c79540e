"""Swap: the pods of the stable revision get the candidate's content, one after another; no pod starts or ends.

A pod that changes its revision leaves the Services of the stable revision first. Its Triton serves the old content
until the new one is loaded, and goes on with it if that fails. A service with one pod has no other that serves
meanwhile, so its pod stays in the Services, and all requests get the new content at one moment.
"""

from collections.abc import Mapping

from conch.api import Rollout, StepInForce
from conch.api.names import StrategyName
from conch.decide.context import RolloutContext, least_replicas
from conch.decide.state import RolloutState
from conch.decide.strategies.progressive import Progressive
from conch.decide.strategies.strategy import LAST, WithoutStable
from conch.decide.swap import MIN_PODS
from conch.traffic import TrafficRouter


class Swap(Progressive):
    """The steps and gates of the spec, and one workload for both revisions."""

    name = StrategyName.SWAP
    shares_pods = True
    is_in_place = False
    min_pods = MIN_PODS

    def steps(self, rollout: Rollout) -> tuple[StepInForce, ...]:
        """Return the steps of the spec, after one in which the candidate has a single pod.

        From then on the requests follow the pods: no pod waits without requests for others that load.

        >>> [step.weight for step in Swap().steps(Rollout())]
        [1, 100]
        """
        steps = super().steps(rollout)
        first = next(index for index, step in enumerate(steps) if step.weight)
        return steps if steps[first].weight == 1 else (*steps[:first], StepInForce(weight=1), *steps[first:])

    def pods(self, router: TrafficRouter, weight: int, capacity: int) -> int:
        """Return the pods that have the share of the weight, of those that carry all requests.

        The last pod of the stable revision keeps it until no request goes to that any more.

        >>> from conch.traffic import ServiceRouter
        >>> [Swap().pods(ServiceRouter(), weight, 4) for weight in (0, 5, 25, 50, 90, 100)]
        [1, 1, 1, 2, 3, 3]
        """
        del router
        return min(max(1, round(capacity * weight / 100)), max(1, capacity - 1))

    def replicas(self, context: RolloutContext, state: RolloutState, needed: int) -> Mapping[str, int]:
        """Return the replicas of the pods of both revisions, with one that serves while another changes."""
        del needed
        least = least_replicas(context.service)
        if state.has_failed or state.awaits_admission:
            return {context.stable: least}
        kept = max(least, state.capacity, self.min_pods)
        return {context.wanted: kept, context.stable: kept}


class SwapInPlace(WithoutStable, Swap):
    """All requests at one moment, then the analyses and pauses of the spec."""

    name = StrategyName.SWAP_IN_PLACE
    is_in_place = True
    min_pods = 1

    def steps(self, rollout: Rollout) -> tuple[StepInForce, ...]:
        """Return the last step, and after it those of the spec that are no weight.

        >>> rollout = Rollout.model_validate({"steps": [{"weight": 25}, {"pause": "1m"}, {"weight": 50}]})
        >>> [step.to_wire() for step in SwapInPlace().steps(rollout)]
        [{'weight': 100}, {'pause': '1m'}, {'weight': 100}]
        >>> [step.to_wire() for step in SwapInPlace().steps(Rollout())]
        [{'weight': 100}]
        """
        others = tuple(step for step in super().steps(rollout) if step.weight is None)
        return (LAST, *others, LAST) if others else (LAST,)

    def pods(self, router: TrafficRouter, weight: int, capacity: int) -> int:
        """Return 1: the first pod that has changed gets the requests, whether others follow or not.

        There is one, unless an autoscaler, or the change itself, adds some.
        """
        del router, weight, capacity
        return 1
