"""A pytest plugin: the slowest tests of a run with what they waited for, and how busy the processor was.

The seconds of each test are kept in pytest's cache, and with `--store-durations` in tests/durations.json, which is
committed. tests/support/schedule.py starts the slowest tests first.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support import wait

_CACHE_KEY: Final = "conch/seconds"
_STORED: Final = Path(__file__).resolve().parents[1] / "durations.json"
_STORED_SECONDS: Final = 5.0  # a test that is faster is not in that file
_WAITS: Final = "waits"  # the name of a report's property
_TESTS, _WAITS_OF_A_TEST = 20, 4
_LEAST_SECONDS: Final = 1.0  # below that a test or a wait is not shown
_WIDTH: Final = 100
_PHASES: Final = ("setup", "call", "teardown")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes the seconds down for those who clone the repository."""
    parser.addoption(
        "--store-durations", action="store_true", help="write the slow tests' seconds to tests/durations.json"
    )


def known_seconds(config: pytest.Config) -> dict[str, float]:
    """Return the seconds of each test that has run: on this machine, else where the committed file was written."""
    cache = getattr(config, "cache", None)  # there is none with -p no:cacheprovider
    here: dict[str, float] = cache.get(_CACHE_KEY, {}) if cache else {}
    return _stored() | here


def _stored() -> dict[str, float]:
    found: dict[str, float] = json.loads(_STORED.read_text()) if _STORED.exists() else {}
    return found


def pytest_configure(config: pytest.Config) -> None:
    """Collect in the process that prints: with pytest-xdist, the one that has the workers."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Timing(config), "conch-timing")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """Add the waits of a phase to its report, which pytest-xdist carries to the process that prints."""
    report: Any = yield
    report.user_properties.append((_WAITS, wait.take_waits()))
    return report


@dataclass
class Timed:
    """The seconds of one test: by phase, and by the description of a wait."""

    phases: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_PHASES, 0.0))
    waits: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @property
    def seconds(self) -> float:
        return sum(self.phases.values())

    def lines(self, name: str) -> list[str]:
        """Return a line for the test, and one for each of its longest waits."""
        phases = " ".join(f"{self.phases[phase]:9.1f}" for phase in _PHASES)
        longest = sorted(self.waits.items(), key=lambda item: -sum(item[1]))[:_WAITS_OF_A_TEST]
        shown = [
            f"{'':42}{sum(all_):7.1f}  {_short(what)}{f' ({len(all_)} times)' if len(all_) > 1 else ''}"
            for what, all_ in longest
            if sum(all_) >= _LEAST_SECONDS
        ]
        return [f"{self.seconds:9.1f} {phases}  {name}", *shown]


class Timing:
    """The plugin of the process that prints."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._tests: dict[str, Timed] = defaultdict(Timed)
        self._began = time.monotonic()
        self._busy, self._all = _processor()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add one phase of one test."""
        timed = self._tests[report.nodeid]
        timed.phases[report.when or "call"] += report.duration
        for what, seconds in dict(report.user_properties).get(_WAITS, ()):  # type: ignore[attr-defined]
            timed.waits[what].append(seconds)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the slowest tests, and keep the seconds of all for the next run."""
        seconds = {name: round(timed.seconds, 1) for name, timed in self._tests.items()}
        cache = getattr(self._config, "cache", None)
        if cache is not None and seconds:
            cache.set(_CACHE_KEY, cache.get(_CACHE_KEY, {}) | seconds)
        if self._config.getoption("store_durations"):
            slow_ones = {name: took for name, took in (_stored() | seconds).items() if took >= _STORED_SECONDS}
            _STORED.write_text(json.dumps(slow_ones, indent=2, sort_keys=True) + "\n")
        slowest = sorted(self._tests.items(), key=lambda item: -item[1].seconds)[:_TESTS]
        slow = [(name, timed) for name, timed in slowest if timed.seconds >= _LEAST_SECONDS]
        if not slow:
            return
        terminalreporter.section("slowest tests, in seconds, and their longest waits")
        terminalreporter.line(f"{'all':>9} {' '.join(f'{phase:>9}' for phase in _PHASES)}")
        for name, timed in slow:
            for line in timed.lines(name):
                terminalreporter.line(line)
        busy, all_ = _processor()
        terminalreporter.line(
            f"{os.cpu_count()} processors were busy for {100 * (busy - self._busy) / max(1, all_ - self._all):.0f} %"
            f" of {time.monotonic() - self._began:.0f} s"
        )


def _short(what: str) -> str:
    """Return the first line of a description, cut at 100 characters."""
    line = what.partition("\n")[0].strip()
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 3]}..."


def _processor() -> tuple[int, int]:
    """Return the ticks in which processors worked, and all ticks, since the machine started."""
    file = Path("/proc/stat")
    if not file.exists():
        return 0, 0
    ticks = [int(number) for number in file.read_text().splitlines()[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)  # without idle and iowait
