"""The rules of variants with a match: when they come, go and move, no request meets a rule without its backends."""

from collections.abc import Mapping
from itertools import product
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conch.api import Header, Match
from conch.api.variants import MAX_VARIANTS
from conch.traffic.slots import VACANT, Slot, next_slots

Slots = tuple[Slot, ...]
TRACKS: Final = [f"magika-{letter}" for letter in "abcdefghi"]


def match(value: str, name: str = "x-variant") -> tuple[Match, ...]:
    return (Match(headers=(Header(name=name, value=value),)),)


def build_matches(*tracks: str) -> dict[str, tuple[Match, ...]]:
    """Matches of which no request meets two."""
    return {track: match(track) for track in tracks}


def failures(versions: list[Slots]) -> list[str]:
    """Return what a gateway can do wrong that is somewhere among these versions of a route.

    It may have the rules of one version and the backends of another, as Envoy has routes and clusters. The predictor
    may answer for a variant that has gone.
    """
    found = []
    for (old, rules), (new, clusters) in product(enumerate(versions), repeat=2):
        for index, slot in enumerate(rules):
            if not slot.active:
                continue
            if index >= len(clusters):
                found.append(f"{slot.track}: no cluster at {index}")
            elif clusters[index].track != slot.track and not (clusters[index] == VACANT and new > old):
                found.append(f"{slot.track}: answered by {clusters[index]}")
    return found


@given(
    st.lists(
        st.tuples(st.lists(st.sampled_from(TRACKS), unique=True, max_size=MAX_VARIANTS), st.booleans()), max_size=30
    )
)
def test_no_request_fails_or_gets_the_answer_of_another_variant_while_variants_change(
    story: list[tuple[list[str], bool]],
) -> None:
    versions: list[Slots] = [()]  # since the last one that the gateway has surely applied
    for tracks, settled in story:
        following = next_slots(versions[-1], build_matches(*tracks), settled=settled)
        versions = [versions[-1], following] if settled else [*versions, following]
        assert len(following) <= MAX_VARIANTS
        assert not failures(versions), versions
    last = build_matches(*story[-1][0]) if story else {}
    slots = versions[-1]
    for _ in range(4):
        slots = next_slots(slots, last, settled=True)
    assert {slot.track for slot in slots if slot.active} == set(last)
    assert next_slots(slots, last, settled=True) == slots
    assert slots[-1:] != (VACANT,)


def test_a_rule_keeps_its_index_when_another_one_goes() -> None:
    a, b = (Slot(track, active=True) for track in TRACKS[:2])
    kept = next_slots((a, b), build_matches(b.track), settled=True)
    assert kept == (VACANT, b)
    assert next_slots(kept, build_matches(b.track), settled=True) == kept
    assert next_slots(kept, {}, settled=False) == (VACANT, VACANT)
    assert next_slots((VACANT, VACANT), {}, settled=True) == ()


def test_a_vacant_rule_is_given_away_when_the_gateway_has_surely_applied_it() -> None:
    b, c = Slot(TRACKS[1], active=True), Slot(TRACKS[2])
    assert next_slots((VACANT, b), build_matches(b.track, c.track), settled=False) == (VACANT, b, c)
    assert next_slots((VACANT, b), build_matches(b.track, c.track), settled=True) == (c, b)


def test_a_new_rule_waits_for_a_removed_one_when_all_are_used() -> None:
    full = tuple(Slot(track, active=True) for track in TRACKS[:MAX_VARIANTS])
    tracks = [*(slot.track for slot in full[1:]), TRACKS[-1]]
    going = next_slots(full, build_matches(*tracks), settled=True)
    assert going == (VACANT, *full[1:])
    assert next_slots(going, build_matches(*tracks), settled=False) == going
    assert next_slots(going, build_matches(*tracks), settled=True) == (Slot(TRACKS[-1]), *full[1:])


@pytest.mark.parametrize(
    ("other", "is_ambiguous"), [(match("b"), False), (match("a", "x-user"), True), (match("a") + match("b"), True)]
)
def test_two_rules_that_one_request_meets_stand_as_in_the_spec(other: tuple[Match, ...], is_ambiguous: bool) -> None:
    seen = (Slot("a", active=True),)
    matches: Mapping[str, tuple[Match, ...]] = {"b": other, "a": match("a")}
    both = (Slot("b", active=True), Slot("a", active=True))
    assert next_slots(seen, matches, settled=False) == (both if is_ambiguous else (*seen, Slot("b")))


def test_a_rule_with_more_headers_wins_at_any_index() -> None:
    more = (Match(headers=(Header(name="x-user", value="me"), Header(name="x-variant", value="a"))),)
    seen = (Slot("a", active=True),)
    assert next_slots(seen, {"b": more, "a": match("a")}, settled=False) == (*seen, Slot("b"))
