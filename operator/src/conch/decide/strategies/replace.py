"""Replace: the stable revision has never had a ready pod, so the candidate gets all requests at once."""

from conch.api import Rollout, StepInForce
from conch.api.analysis import Gate, named
from conch.api.names import StrategyName
from conch.decide.strategies.progressive import Progressive
from conch.decide.strategies.strategy import LAST


class Replace(Progressive):
    """No steps, and no parity gate: there is no answer to compare with."""

    name = StrategyName.REPLACE

    def steps(self, rollout: Rollout) -> tuple[StepInForce, ...]:
        """Return the last step alone."""
        del rollout
        return (LAST,)

    def gates(self, rollout: Rollout) -> tuple[Gate, ...]:
        """Return the gates of the spec that need no stable revision."""
        return tuple(gate for gate in named(rollout.analysis) if gate.parity is None)
