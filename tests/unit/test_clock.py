"""The clock of decisions, beside a system's clock that is set and a monotonic one that goes on."""

from __future__ import annotations

import pytest

from conch.clock import SteadyClock

HOUR = 3600.0
START = 1_000_000.0


class Machine:
    """Both clocks of a machine."""

    def __init__(self) -> None:
        self.wall, self.monotonic = START, 50.0
        self.clock = SteadyClock(lambda: self.wall, lambda: self.monotonic)

    def run(self, seconds: float, every: float = 1.0) -> float:
        """Let time pass; return how much of it the clock has shown."""
        before = self.clock()
        for _ in range(round(seconds / every)):
            self.wall += every
            self.monotonic += every
            self.clock()
        return self.clock() - before


def test_the_clock_is_that_of_the_system_while_that_is_not_set() -> None:
    machine = Machine()
    assert machine.run(100) == pytest.approx(100)
    assert machine.clock() == pytest.approx(machine.wall)


@pytest.mark.parametrize("step", [HOUR, -HOUR])
@pytest.mark.parametrize("every", [0.01, 60.0])
def test_a_minute_is_nearly_a_minute_when_the_systems_clock_is_set(step: float, every: float) -> None:
    machine = Machine()
    machine.run(10)
    machine.wall += step
    assert 54 - 1e-6 <= machine.run(60, every) <= 66 + 1e-6
    machine.run(12 * HOUR, 60.0)
    assert machine.clock() == pytest.approx(machine.wall)


@pytest.mark.parametrize("step", [100 * 24 * HOUR, -100 * 24 * HOUR])
def test_a_clock_that_was_wrong_by_days_is_set_right_at_once(step: float) -> None:
    machine = Machine()
    machine.wall += step
    assert machine.clock() == pytest.approx(machine.wall)
