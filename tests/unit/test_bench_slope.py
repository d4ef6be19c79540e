"""The slope of figures over time: outliers, stairs, noise, and how sure it is."""

from __future__ import annotations

import pytest

from tests.bench.slope import Slope, compute_slope


def test_an_outlier_changes_nothing() -> None:
    line = [(float(x), 2.0 * x) for x in range(20)]
    found = compute_slope([*line[:10], (10.0, 500.0), *line[11:]])
    assert found.median == 2.0
    assert found.low == pytest.approx(2.0, abs=0.5)


def test_a_level_line_has_no_slope() -> None:
    assert compute_slope([(x, 5.0) for x in range(10)]) == Slope(0.0, 0.0, 0.0)


def test_the_interval_has_the_slope_of_a_noisy_line_and_narrows_with_points() -> None:
    noise = (0, 4, -7, 3, 6, -2, -5, 1)  # in turns, with a mean of 0
    short, long = (compute_slope([(x, 3.0 * x + noise[x % len(noise)]) for x in range(count)]) for count in (16, 88))
    for found in (short, long):
        assert found.low < 3.0 < found.high
        assert found.low <= found.median <= found.high
    assert long.high - long.low < short.high - short.low


def test_two_points_have_their_slope() -> None:
    assert compute_slope([(0, 1), (2, 5)]) == Slope(2.0, 2.0, 2.0)


@pytest.mark.parametrize("points", [[], [(1, 1)], [(1, 1), (1, 2)]])
def test_a_slope_needs_two_points_of_different_x(points: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="two points of different x"):
        compute_slope(points)


def test_units_are_scaled_with_the_interval() -> None:
    assert Slope(1.0, -1.0, 2.0).scale(1440) == Slope(1440.0, -1440.0, 2880.0)
