"""The state of a rollout, as it is read from the status and written to it."""

import pytest

from conch.api import RolloutStatus
from conch.decide.state import RolloutState

SINCE = "2026-01-01T00:00:00Z"


def round_trip(**fields: object) -> RolloutStatus:
    status = RolloutStatus.model_validate({"revision": "m-1", "since": SINCE, "started": SINCE, **fields})
    return RolloutState.parse(status).to_status()


def test_a_state_that_is_written_is_read_as_the_same() -> None:
    state = RolloutState.begin("m-1", 3, 1_800_000_000.7)
    assert RolloutState.parse(state.to_status()) == state


@pytest.mark.parametrize(
    ("field", "value", "read"),
    [
        ("phase", "Unheard", "Progressing"),
        ("strategy", "Unheard", "Progressive"),
        ("admission", "Unheard", "Unknown"),
        ("admission", "", ""),
    ],
)
def test_an_unknown_value_of_another_writer_is_the_default(field: str, value: str, read: str) -> None:
    assert getattr(round_trip(**{field: value}), field) == read


@pytest.mark.parametrize("since", ["1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59"])
def test_a_time_before_1970_stays_a_time(since: str) -> None:
    once = round_trip(since=since, unavailable_since=since)
    assert once.since == once.unavailable_since == "1970-01-01T00:00:01Z", "without a time the rollout would restart"
    assert RolloutState.parse(once).to_status() == once


def test_a_time_in_another_zone_is_written_in_utc() -> None:
    assert round_trip(since="2026-01-01T02:00:00.5+02:00").since == SINCE
