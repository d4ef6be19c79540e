"""What all tiers have: the list of the slowest tests, and the order in which workers run tests."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings

import conch  # noqa: F401  before kubernetes_asyncio is imported, which then costs what is used of it

# How long an example takes to generate or to run is the machine's doing: the first text builds tables for a second.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# Models that run inside Triton, or where one is trained: they import what this environment lacks.
collect_ignore_glob = ["support/models/*"]

pytest_plugins = ["tests.support.timing", "tests.support.schedule"]

_LOG_LINES: Final = 80


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our own options."""
    parser.addoption(
        "--keep-clusters",
        action="store_true",
        help="leave the api tier's clusters up, so that the next run starts at once",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Add the last lines of each log file in a failed test's directory to its report."""
    report: Any = yield
    directory = getattr(item, "funcargs", {}).get("tmp_path")
    if report.failed and isinstance(directory, Path):
        report.sections += [(str(log.relative_to(directory)), _end_of(log)) for log in sorted(directory.rglob("*.log"))]
    return report


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
