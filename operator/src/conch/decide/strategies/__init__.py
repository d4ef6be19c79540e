"""The strategies of a rollout, one file each: its steps, its gates, and which revision has how many pods when.

To add a strategy: a name in `conch.api.names.StrategyName`, and in `conch.api.rollout.Rollout.strategy` if users select
it, there with the tables WITHOUT_STEPS and WITHOUT_STABLE; a file here, and its object in `_ALL`.
"""

from collections.abc import Mapping
from typing import Final

from conch.api import Admission, Rollout, RolloutStatus, StepInForce
from conch.api.names import StrategyName
from conch.decide.state import RolloutState
from conch.decide.strategies.progressive import Progressive
from conch.decide.strategies.recreate import Recreate
from conch.decide.strategies.replace import Replace
from conch.decide.strategies.strategy import LAST, Strategy
from conch.decide.strategies.swap import Swap, SwapInPlace

__all__ = ["LAST", "STRATEGIES", "Strategy", "choose_strategy", "get_steps", "strategy_of"]

_ALL: Final[tuple[Strategy, ...]] = (Progressive(), Replace(), Recreate(), Swap(), SwapInPlace())
STRATEGIES: Final[Mapping[StrategyName, Strategy]] = {strategy.name: strategy for strategy in _ALL}


def choose_strategy(
    rollout: Rollout,
    admission: Admission | None = None,
    *,
    has_answered: bool = True,
    can_swap: bool = True,
    is_in_place: bool = False,
) -> Strategy:
    """Return the strategy of a rollout.

    Args:
        rollout: of the spec.
        admission: whether GPUs are free for the candidate's pods beside those of the stable revision.
        has_answered: whether the stable revision has had a ready pod.
        can_swap: whether the stable revision's pods can serve the candidate.
        is_in_place: whether these pods serve while they change.

    >>> choose_strategy(Rollout()).name.value, choose_strategy(Rollout(), Admission.INSUFFICIENT).name.value
    ('Progressive', 'Recreate')
    >>> choose_strategy(Rollout(strategy="Swap")).name.value
    'Swap'
    >>> choose_strategy(Rollout(strategy="Swap"), is_in_place=True).name.value
    'SwapInPlace'
    >>> choose_strategy(Rollout(strategy="Swap"), can_swap=False).name.value
    'Progressive'
    >>> choose_strategy(Rollout(), has_answered=False).name.value
    'Replace'
    """
    name = StrategyName(rollout.strategy)
    if admission == Admission.INSUFFICIENT:
        swaps = rollout.on_insufficient_capacity == "Swap" and can_swap and has_answered
        name = StrategyName.SWAP if swaps else StrategyName.RECREATE
    elif name != StrategyName.RECREATE and not has_answered:
        name = StrategyName.REPLACE
    elif name == StrategyName.SWAP and not can_swap:
        name = StrategyName.PROGRESSIVE
    if name == StrategyName.SWAP and is_in_place:
        name = StrategyName.SWAP_IN_PLACE
    return STRATEGIES[name]


def strategy_of(state: RolloutState | None, rollout: Rollout) -> Strategy:
    """Return the strategy in force; without a rollout, that of the spec."""
    return STRATEGIES[state.strategy] if state is not None else choose_strategy(rollout)


def get_steps(rollout: Rollout, status: RolloutStatus | None) -> tuple[StepInForce, ...]:
    """Return the steps in force: those of the status; before a rollout has any, those of the spec."""
    return status.steps if status is not None and status.steps else choose_strategy(rollout).steps(rollout)
