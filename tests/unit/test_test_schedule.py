"""How workers share the tests of a run: pytest in a folder of its own, with the plugins of tests/support."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION = """
[pytest]
markers =
  alone: x
  last: x
"""
STORY = """
import os, time
from pathlib import Path
import pytest
from tests.support.shared import run_once
from tests.support.wait import until

FOLDER = Path(__file__).parent

def note(name, seconds=0.0):
    with (FOLDER / "notes").open("a") as notes:
        notes.write(f"begin {name} {os.environ.get('PYTEST_XDIST_WORKER')}\\n")
    time.sleep(seconds)
    with (FOLDER / "notes").open("a") as notes:
        notes.write(f"end {name}\\n")

@pytest.fixture(scope="session", autouse=True)
def shared():
    def make():
        note("making")
        return 7
    assert run_once("the shared thing", make) == 7

@pytest.fixture(scope="module")
def together():
    note("together")

@pytest.mark.last
def test_last():
    note("last")

@pytest.mark.alone
def test_alone():
    note("alone")

@pytest.mark.parametrize("number", range(2))
def test_beside_others(number):
    note(f"beside-{number}", 0.3)
    began = time.monotonic()
    until(lambda: time.monotonic() - began > 1.1, "a second has passed", 5)

@pytest.fixture
def costly():
    pass

@pytest.mark.parametrize("number", range(3))
def test_costly(costly, number):
    note(f"costly-{number}", 0.2)

@pytest.mark.parametrize("number", range(2))
@pytest.mark.usefixtures("together")
def test_of_one_file(number):
    note(f"of-one-file-{number}", 0.3)
"""


def run(folder: Path, *arguments: str) -> tuple[str, list[str]]:
    """Return what pytest printed, and what the tests noted."""
    (folder / "pytest.ini").write_text(CONFIGURATION)
    (folder / "test_story.py").write_text(STORY)
    (folder / "notes").write_text("")
    plugins = ("-p", "tests.support.timing", "-p", "tests.support.schedule", "-p", "no:asyncio")
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "CONCH"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(folder), f"--rootdir={folder}", *plugins, *arguments],
        env={**outside, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, (folder / "notes").read_text().splitlines()


def test_workers_share_what_is_made_once_and_stories_that_run_alone_come_after_the_others(tmp_path: Path) -> None:
    output, notes = run(tmp_path, "--numprocesses=3", "--dist=loadgroup")
    order = [" ".join(note.split()[:2]) for note in notes]
    assert order[-4:] == ["begin alone", "end alone", "begin last", "end last"], notes
    assert order.count("begin making") == 1, "what workers share is made once"
    assert order.count("begin together") == 1, "tests that share a fixture of their file run in one worker"
    assert "slowest tests, in seconds, and their longest waits" in output
    assert "test_beside_others[1]" in output
    assert "a second has passed" in output

    _, notes = run(tmp_path)
    begun = [note.split()[1] for note in notes if note.startswith("begin ")]
    assert set(begun[1:3]) == {"beside-0", "beside-1"}, "the slowest ones come first the next time"
    assert begun[-2:] == ["alone", "last"], "without workers too"


def test_tests_that_use_a_costly_fixture_run_in_few_workers(tmp_path: Path) -> None:
    _, notes = run(tmp_path, "--numprocesses=3", "--dist=loadgroup", "--fixture-workers=costly:1")
    ran = [note.split()[1:] for note in notes if note.startswith("begin ")]
    assert len({worker for name, worker in ran if name.startswith("costly")}) == 1, "whichever is up first"
    assert len({worker for _, worker in ran}) > 1, "the others run the rest"
    assert len([name for name, _ in ran if name.startswith(("costly", "beside", "of-one-file"))]) == 7, ran
    assert [name for name, _ in ran][-2:] == ["alone", "last"]
