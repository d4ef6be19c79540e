"""An answer that is no success is an error with a sentence, for every server and every content."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conch.write.errors import read_error

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(), each, max_size=3),
    max_leaves=8,
)
STATUS = st.dictionaries(
    st.sampled_from(["message", "reason", "code", "kind", "details"]),
    ANYTHING | st.dictionaries(st.sampled_from(["causes", "kind", "retryAfterSeconds"]), ANYTHING),
)


@given(STATUS)
def test_no_answer_is_an_exception_of_another_kind(body: dict[str, object]) -> None:
    error = read_error(503, json.dumps(body).encode(errors="replace"))
    assert isinstance(error.message, str)
    assert isinstance(error.reason, str)
    assert error.retry_after is None or 0 <= error.retry_after <= 60


@pytest.mark.parametrize(
    "text",
    ['{"code": 14, "message": "upstream", "details": [{"@type": "x"}]}', "[" * 100_000, "<html>busy</html>", ""],
)
def test_the_words_of_what_stands_before_the_api_server_are_kept(text: str) -> None:
    error = read_error(503, text)
    assert (error.code, error.reason) == (503, "")
    assert error.message == ("upstream" if "upstream" in text else error.message)
    assert len(error.message) <= 1024
