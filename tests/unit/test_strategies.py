"""The table of strategies: each name has one, and each that users select is a name."""

from typing import get_args

import pytest

from conch.api import Admission, Rollout
from conch.api.names import StrategyName
from conch.api.rollout import WITHOUT_STABLE, WITHOUT_STEPS
from conch.decide.strategies import LAST, STRATEGIES, Strategy, choose_strategy

SELECTABLE = get_args(Rollout.model_fields["strategy"].annotation)
GATED = {"analysis": [{"successRate": {"min": "99%"}}, {"parity": {}}], "steps": [{"weight": 10}]}


def test_each_name_has_a_strategy() -> None:
    assert set(STRATEGIES) == set(StrategyName)
    assert all(strategy.name == name for name, strategy in STRATEGIES.items())


@pytest.mark.parametrize("name", SELECTABLE)
def test_a_strategy_of_the_spec_is_chosen_where_gpus_suffice_and_the_stable_revision_has_answered(name: str) -> None:
    assert choose_strategy(Rollout.model_validate({"strategy": name})).name.value == name


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_the_last_step_gives_the_candidate_all_requests(strategy: Strategy) -> None:
    rollout = Rollout.model_validate(GATED)
    assert strategy.steps(rollout)[-1] == LAST


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_a_strategy_that_ends_one_revision_for_the_other_compares_no_answers(strategy: Strategy) -> None:
    needs_stable = [gate for gate in strategy.gates(Rollout.model_validate(GATED)) if gate.needs_stable]
    assert strategy.serves_both or not needs_stable


@pytest.mark.parametrize("admission", [None, *Admission])
def test_answers_are_compared_only_beside_a_stable_revision_that_has_answered(admission: Admission | None) -> None:
    rollout = Rollout.model_validate(GATED)
    for has_answered in (True, False):
        strategy = choose_strategy(rollout, admission, has_answered=has_answered)
        compares = any(gate.needs_stable for gate in strategy.gates(rollout))
        assert compares == (has_answered and admission != Admission.INSUFFICIENT)


@pytest.mark.parametrize("name", SELECTABLE)
def test_the_crd_refuses_steps_and_gates_that_a_strategy_does_not_follow(name: str) -> None:
    rollout, strategy = Rollout.model_validate(GATED), choose_strategy(Rollout.model_validate({"strategy": name}))
    assert (name in WITHOUT_STEPS) == (strategy.steps(rollout) == (LAST,))
    assert (name in WITHOUT_STABLE) == (not any(gate.needs_stable for gate in strategy.gates(rollout)))
