"""A pytest plugin: which worker of pytest-xdist runs which test, and when (`--dist loadgroup`).

- Tests that share a fixture of their file, or a mark `xdist_group`, run in one worker, in the order of the file.
- A test marked `alone` starts when all other workers have ended. A test marked `last` starts after all others.
- The slowest tests start first, as far as their seconds are known (tests/support/timing.py).
- A worker holds the test that it runs and one more, so that no slow test waits behind another one.
- With `--fixture-workers=NAME:COUNT` the tests that use a fixture run in the COUNT workers that are up first, which
  start with them: an expensive fixture of the session is made at most COUNT times. Tests marked `alone` or `last` do
  not count.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Final

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.support.timing import known_seconds

RUN: Final = "CONCH_TEST_RUN"  # the environment variable that names the folder which the workers of a run share
_ALONE: Final = "alone"
_LAST: Final = "last"
_GROUPS: Final = "groups.json"  # in that folder: the group of each test that has one, and the groups for few workers
_UNKNOWN_SECONDS: Final = 2.0  # of a test that has no figure, or is fast
_WORKER = pytest.StashKey[IO[str]]()


def run_folder() -> Path:
    """Return the folder that all workers of this run share; it goes when the run ends."""
    return Path(os.environ[RUN])


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our own option."""
    parser.addoption(
        "--fixture-workers",
        metavar="NAME:COUNT",
        default="",
        help="tests that use this fixture run in the first COUNT workers only",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder of the run. A worker locks a file in it until it has run its last test."""
    worker = getattr(config, "workerinput", None)
    if worker is None:
        os.environ[RUN] = tempfile.mkdtemp(prefix="conch-tests-")
    else:
        config.stash[_WORKER] = (run_folder() / f"{worker['workerid']}.worker").open("w")
        fcntl.flock(config.stash[_WORKER], fcntl.LOCK_EX)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Unlock the file of this worker."""
    if _WORKER in session.config.stash:
        session.config.stash[_WORKER].close()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the folder of the run."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(RUN, ""), ignore_errors=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sort: the slowest groups first, then the tests that run alone, and the last ones. Within a group nothing moves.

    All workers read the same seconds: the process that has the workers writes them when the run ends.
    """
    if hasattr(config, "workerinput") and not config.option.loadgroup:
        return
    known = known_seconds(config)
    seconds: dict[str, float] = {}
    for item in items:
        seconds[_scope(item)] = seconds.get(_scope(item), 0.0) + known.get(item.nodeid, _UNKNOWN_SECONDS)
    items.sort(key=lambda item: (_is(item, _LAST), _is(item, _ALONE), -seconds[_scope(item)]))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Write down the groups, for the process that gives out the tests, before it is sent their names."""
    if hasattr(session.config, "workerinput"):
        groups = {item.nodeid: _scope(item) for item in session.items if _scope(item) != item.nodeid}
        fixture, _ = _limit(session.config)
        few = {_scope(item) for item in session.items if fixture in getattr(item, "fixturenames", ())} - {_ALONE}
        scratch = run_folder() / f"{session.config.workerinput['workerid']}-{_GROUPS}"
        scratch.write_text(json.dumps([groups, sorted(few)]))
        scratch.replace(run_folder() / _GROUPS)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Any:
    """Hold a test that runs alone until the other workers have ended, and let one such test run at a time."""
    if _scope(item) != _ALONE:
        return (yield)
    if _WORKER in item.config.stash:
        item.config.stash[_WORKER].close()
    with (run_folder() / "alone.lock").open("w") as own:
        for path in sorted(run_folder().glob("*.worker")):
            with path.open() as other:
                fcntl.flock(other, fcntl.LOCK_SH)
        fcntl.flock(own, fcntl.LOCK_EX)
        return (yield)


def _limit(config: pytest.Config) -> tuple[str, int]:
    """Return the fixture whose tests run in the first workers, and the number of these workers; 0: all."""
    fixture, _, count = str(config.getoption("--fixture-workers")).partition(":")
    return fixture, int(count or 0)


def _is(item: pytest.Item, mark: str) -> bool:
    return item.get_closest_marker(mark) is not None


def _scope(item: pytest.Item) -> str:
    """Return what all tests have in common that must run in one worker with this one; else the test's own id."""
    if _is(item, _ALONE) or _is(item, _LAST):
        return _ALONE
    if named := item.get_closest_marker("xdist_group"):
        return str(named.args[0])
    definitions = getattr(item, "_fixtureinfo").name2fixturedefs  # noqa: B009  private, and of no type
    shared = any(found[-1].scope in {"module", "package", "class"} for found in definitions.values() if found)
    return item.nodeid.partition("::")[0] if shared else item.nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """Give out tests one by one, or by groups."""
    if config.getvalue("dist") != "loadgroup":
        return None
    config.option.loadscopereorder = False  # by the number of tests of a group; ours is by their seconds
    return OneAhead(config, log)


class OneAhead(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Groups in the order of collection; a worker gets the next one when it holds one test besides the running one.

    pytest-xdist's own groups are lost: it writes them into the ids of tests in a way that pytest 9 does not read.
    """

    def _split_scope(self, nodeid: str) -> str:
        return self._known[0].get(nodeid, nodeid)

    def _reschedule(self, node: Any) -> None:
        if self.workqueue and self._next(node) is None:
            node.shutdown()  # when it has run what it holds
        elif not self.workqueue or self._pending_of(self.assigned_work[node]) < 2:
            super()._reschedule(node)

    def _assign_work_unit(self, node: Any) -> None:
        scope = self._next(node)
        if scope is None:
            node.shutdown()
        else:
            self.workqueue.move_to_end(scope, last=False)
            super()._assign_work_unit(node)

    def _next(self, node: Any) -> str | None:
        """Return the next group for a worker; None: no group is left for it."""
        few = self._known[1]
        _, count = _limit(self.config)
        if node in list(self.nodes)[:count]:
            return next((scope for scope in self.workqueue if scope in few), next(iter(self.workqueue), None))
        return next((scope for scope in self.workqueue if not count or scope not in few), None)

    @cached_property
    def _known(self) -> tuple[dict[str, str], frozenset[str]]:
        """The group of each test that has one, and the groups for a few workers."""
        groups, few = json.loads((run_folder() / _GROUPS).read_text())
        return groups, frozenset(few)
