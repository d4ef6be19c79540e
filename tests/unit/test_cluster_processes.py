"""A recorded process is ours only while pid, start time and boot all fit."""

import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster.processes import (
    Component,
    Identity,
    Records,
    identify,
    is_running,
    parse_stat,
    prioritize_session,
    prioritized,
    stop,
)

STAT = "42 (a (weird) name) S 1 42 42 0 -1 4194560 1 0 0 0 3 1 0 0 20 0 1 0 987654 1000 10 18446744073709551615"


def _sleeper(*argv: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(argv or ("sleep", "60"))


def test_the_start_time_is_found_behind_any_name() -> None:
    assert parse_stat(STAT) == ("S", 987654)


def test_the_present_process_is_running() -> None:
    me = identify(os.getpid())
    assert me is not None
    assert is_running(me)


def test_a_pid_that_was_given_to_another_process_is_not_ours() -> None:
    me = identify(os.getpid())
    assert me is not None
    assert not is_running(replace(me, start_time=me.start_time - 1))
    assert not is_running(replace(me, boot="another boot"))


def test_a_zombie_is_dead() -> None:
    child = _sleeper("true")
    deadline = time.monotonic() + 10
    while identify(child.pid) is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert identify(child.pid) is None
    child.wait()


def test_stop_ends_ours_and_spares_the_reused_pid() -> None:
    ours, foreign = _sleeper(), _sleeper()
    identity, reused = identify(ours.pid), identify(foreign.pid)
    assert identity is not None
    assert reused is not None
    stop([identity, replace(reused, start_time=1)])
    assert not is_running(identity)
    assert is_running(reused)
    foreign.kill()
    foreign.wait()
    ours.wait()


@pytest.mark.skipif(os.getuid() != 0, reason="only root may raise a priority")
def test_a_session_of_its_own_has_its_priority_beside_other_sessions() -> None:
    child = subprocess.Popen(prioritized(-10, ["sleep", "60"]), start_new_session=True)
    prioritize_session(child.pid, -10)
    autogroup = Path(f"/proc/{child.pid}/autogroup")
    weight = autogroup.read_text().strip() if autogroup.exists() else "nice -10"
    child.kill()
    child.wait()
    assert weight.endswith("nice -10")


def test_stop_kills_what_ignores_sigterm() -> None:
    child = subprocess.Popen(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"], stdout=-1)
    assert child.stdout is not None
    child.stdout.readline()
    identity = identify(child.pid)
    assert identity is not None
    stop([identity], grace=0.2)
    assert not is_running(identity)
    child.stdout.close()
    child.wait()


def test_records_survive_and_list_only_running_components(tmp_path: Path) -> None:
    records = Records(tmp_path / "components")
    me = identify(os.getpid())
    component = Component("etcd", ["etcd", "--x"], "ns", str(tmp_path / "etcd.log"), "http://x/health")
    records.save(component, me)
    records.save(replace(component, name="gone"), Identity(2**22 + 1, 5, "boot"))
    records.save(replace(component, name="stopped"), None)
    assert list(records.load()) == ["etcd", "gone", "stopped"]
    assert records.load()["etcd"] == (component, me)
    assert list(records.running()) == ["etcd"]
