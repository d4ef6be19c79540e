"""Replace: the stable revision has never had a ready pod, so the candidate gets all requests at once."""

from conch.api.names import StrategyName
from conch.decide.strategies.progressive import Progressive
from conch.decide.strategies.strategy import WithoutStable, WithoutSteps


class Replace(WithoutSteps, WithoutStable, Progressive):
    """No steps, and no gate that needs the stable revision: there is no answer to compare with."""

    name = StrategyName.REPLACE
