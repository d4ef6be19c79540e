"""Label selectors as a client of the API server writes them, and texts that are none."""

from __future__ import annotations

import pytest

from conch.api.label_selector import parse_selector

LONG = 200_000  # characters; the time of a quadratic search in them is minutes


@pytest.mark.parametrize(
    ("text", "matched", "unmatched"),
    [
        ("a in (x, y),!b", {"a": "x"}, {"a": "x", "b": ""}),
        ("a!=b", {}, {"a": "b"}),
        (" a == b ", {"a": "b"}, {}),
        ("a=", {"a": ""}, {"a": "b"}),
        ("a in ()", {"a": ""}, {}),
        ("a notin (x,)", {}, {"a": ""}),
        ("! a", {}, {"a": ""}),
        ("in in (in)", {"in": "in"}, {}),
        ("example.com/shard=b,b", {"example.com/shard": "b", "b": ""}, {"example.com/shard": "b"}),
        (f"a={'x' * 63}", {"a": "x" * 63}, {}),
    ],
)
def test_a_selector_matches_as_in_the_api_server(text: str, matched: dict[str, str], unmatched: dict[str, str]) -> None:
    selects = parse_selector(text)
    assert selects(matched)
    assert not selects(unmatched)


@pytest.mark.parametrize(
    "text",
    ["Example.com/a=b", "a..b/c", "a-/c", f"{'a.' * 127}a/c", "a" * 64, f"a={'x' * 64}", "a=b-", "a in (x", "a b", ","],
)
def test_what_the_api_server_refuses_is_no_selector(text: str) -> None:
    with pytest.raises(ValueError, match="is not a label"):
        parse_selector(text)


@pytest.mark.parametrize("blank", ["\u00a0", "\u2003", "\v", "\f", "\x1f"])
@pytest.mark.parametrize("text", ["a=_b", "_a", "a_", "a_in (x)", "a in (_x)", "a in (x)_,b"])
def test_spaces_are_those_of_the_api_server(text: str, blank: str) -> None:
    """A selector that was copied from a web page may have others, and the API server refuses its watch without end."""
    parse_selector(text.replace("_", " \t\r\n"))
    with pytest.raises(ValueError, match="is not a label"):
        parse_selector(text.replace("_", blank))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", [" " * LONG + "(", "a" * LONG, "a" + " " * LONG + "(", "a." * LONG + "/", "a-" * LONG])
def test_a_long_text_takes_time_in_proportion_to_it(text: str) -> None:
    """Users with `view` send selectors to the metrics API, and a Lease has one as an annotation."""
    with pytest.raises(ValueError, match="is not a label"):
        parse_selector(text)
