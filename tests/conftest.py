"""What all tiers have: the list of the slowest tests, and the order in which workers run tests."""

from __future__ import annotations

import pytest

import conch  # noqa: F401  before kubernetes_asyncio is imported, which then costs what is used of it

pytest_plugins = ["tests.support.timing", "tests.support.schedule"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our own options."""
    parser.addoption(
        "--keep-clusters",
        action="store_true",
        help="leave the api tier's clusters up, so that the next run starts at once",
    )
