"""What counts as different, and what is only Kubernetes' way of writing the same."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conch.observe.compare import fingerprint, says

SAME: list[tuple[Any, Any]] = [
    ({"a": 1, "others": 2}, {"a": 1}),
    ({"cpu": "500m"}, {"cpu": "0.5"}),
    ({"cpu": "2"}, {"cpu": 2}),
    ({"memory": "1Gi"}, {"memory": "1024Mi"}),
    ({"memory": "1e3"}, {"memory": "1k"}),
    ({}, {"emptyDir": {}}),
    ({}, {"args": []}),
    ({}, {"paused": False}),
    ({"env": [{"name": "A"}]}, {"env": [{"name": "A", "value": ""}]}),
    ([{"port": 80, "nodePort": 30000}], [{"port": 80}]),
]
DIFFERENT: list[tuple[Any, Any]] = [
    ({"a": 1}, {"a": 2}),
    ({}, {"a": 1}),
    (None, {"a": 1}),
    ([1, 2], [1]),
    ([], [1]),
    ({"cpu": "500m"}, {"cpu": "501m"}),
    ({"memory": "1Gi"}, {"memory": "1G"}),
    ({"image": "a:1"}, {"image": "a:2"}),
    ({"a": "text"}, {"a": {"b": 1}}),
]


@pytest.mark.parametrize(("observed", "desired"), SAME)
def test_the_same_in_other_words(observed: Any, desired: Any) -> None:
    assert says(observed, desired)


@pytest.mark.parametrize(("observed", "desired"), DIFFERENT)
def test_a_difference_that_must_be_written(observed: Any, desired: Any) -> None:
    assert not says(observed, desired)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(JSON)
def test_everything_says_itself(value: Any) -> None:
    assert says(value, value)


@given(st.dictionaries(st.text(max_size=3), JSON, max_size=4))
def test_a_fingerprint_does_not_depend_on_the_order_of_keys(value: dict[str, Any]) -> None:
    assert fingerprint(value) == fingerprint(dict(reversed(value.items())))
