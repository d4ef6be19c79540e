"""A strategy: how a candidate takes over from the stable revision."""

from collections.abc import Mapping
from typing import Final, Protocol

from conch.api import Rollout, StepInForce
from conch.api.analysis import Gate, named
from conch.api.names import StrategyName
from conch.decide.context import RolloutContext
from conch.decide.state import RolloutState
from conch.traffic import TrafficRouter

LAST: Final = StepInForce(weight=100)


class WithPods:
    """The pods of a strategy under which each revision has its own."""

    shares_pods = False
    is_in_place = False

    def pods(self, router: TrafficRouter, weight: int, capacity: int) -> int:
        """Return the pods that the router requires."""
        return router.pods(weight, capacity)


class WithoutSteps:
    """The steps of a strategy that follows none of the spec: the candidate gets all requests in one."""

    def steps(self, rollout: Rollout) -> tuple[StepInForce, ...]:
        """Return the last step alone."""
        del rollout
        return (LAST,)


class WithoutStable:
    """The gates of a strategy under which the two revisions do not answer at the same time."""

    def gates(self, rollout: Rollout) -> tuple[Gate, ...]:
        """Return the gates of the spec that need no stable revision."""
        return tuple(gate for gate in named(rollout.analysis) if not gate.needs_stable)


class Strategy(Protocol):
    """One strategy: a file of this package, and a row of `STRATEGIES`."""

    name: StrategyName
    serves_both: bool
    """Whether both revisions have pods at the same time."""
    shares_pods: bool
    """Whether they are the same pods, which change from one revision to the other."""
    is_in_place: bool
    """Whether these serve while they change."""

    def steps(self, rollout: Rollout) -> tuple[StepInForce, ...]:
        """Return the steps in force; the last one has the weight 100."""

    def gates(self, rollout: Rollout) -> tuple[Gate, ...]:
        """Return the gates in force, each with its name."""

    def pods(self, router: TrafficRouter, weight: int, capacity: int) -> int:
        """Return the ready pods that the candidate needs for a weight.

        Args:
            router: Of the requests.
            weight: In percent.
            capacity: The pods that carry all requests.
        """

    def replicas(self, context: RolloutContext, state: RolloutState, needed: int) -> Mapping[str, int]:
        """Return the minimum of replicas by revision, of those that a rollout under way or failed needs.

        Args:
            context: the two revisions.
            state: of the rollout.
            needed: ready pods that the candidate needs for its current or next weight.
        """
