"""The order in which a set of models is unloaded: callers first, also of models that call one another."""

from __future__ import annotations

import pytest

from conch_agent.exchange import merge_callees, order_unloads, select_busy


@pytest.mark.parametrize(
    ("callees", "order"),
    [
        ({}, [{"a", "b", "c"}]),
        ({"a": ["b"], "b": ["c"]}, [{"a"}, {"b"}, {"c"}]),
        ({"a": ["c"], "b": ["c"]}, [{"a", "b"}, {"c"}]),
        ({"a": ["b", "c"], "b": ["a", "c"]}, [{"a", "b"}, {"c"}]),
        ({"a": ["b"], "b": ["a"], "c": ["a"]}, [{"c"}, {"a", "b"}]),
        ({"a": ["a", "gone"]}, [{"a", "b", "c"}]),
    ],
)
def test_callers_are_unloaded_first(callees: dict[str, list[str]], order: list[set[str]]) -> None:
    assert [set(level) for level in order_unloads({"a", "b", "c"}, callees)] == order


def test_a_caller_of_the_set_before_is_known_after_its_successor_calls_others() -> None:
    assert merge_callees({"entry": ["old"]}, {"entry": ["new"], "new": []}) == {"entry": {"old", "new"}, "new": set()}


def test_a_clock_that_was_set_back_keeps_no_model_busy() -> None:
    """The last request to version 1 has a time that is not reached for an hour; version 2 answers requests."""
    assert select_busy("ab", {"a": [3700.0], "b": [3700.0, 99.0]}, 100.0) == ["b"]
