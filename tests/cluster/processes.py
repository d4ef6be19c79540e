"""Processes that outlive the command that started them, found again later with certainty.

A pid alone proves nothing: after a kill or a reboot another program may have it. A record holds the pid, the
kernel's start time of that process and the boot it belongs to; only when all three fit is it ours to end.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_START_TIME_FIELD = 19
"""Index of ``starttime`` (field 22 of proc_pid_stat(5)) among the fields after the command's name."""


@dataclass(frozen=True)
class Identity:
    """One process, in a way that no later process can be mistaken for it."""

    pid: int
    start_time: int
    boot: str


@dataclass(frozen=True)
class Component:
    """How a component is started, and where its health is checked.

    ``health`` is a URL, or a unix socket's path, or empty for a component without a health check. ``priority`` is what
    ``prioritize`` takes.
    """

    name: str
    argv: list[str]
    netns: str
    log: str
    health: str = ""
    priority: int = 0
    env: dict[str, str] = field(default_factory=dict)


def boot_id() -> str:
    """Return the id of the running boot; start times count from it."""
    return _BOOT_ID.read_text().strip()


def parse_stat(stat: str) -> tuple[str, int]:
    """Return state and start time (clock ticks since boot) from the text of ``/proc/PID/stat``.

    The command's name may itself hold spaces and parentheses, so the fields count from the last ``)``.
    """
    fields = stat.rpartition(")")[2].split()
    return fields[0], int(fields[_START_TIME_FIELD])


def identify(pid: int) -> Identity | None:
    """Return the identity of a running process, or None when there is none (a zombie counts as none)."""
    try:
        state, start_time = parse_stat(Path(f"/proc/{pid}/stat").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else Identity(pid, start_time, boot_id())


def is_running(identity: Identity) -> bool:
    """Whether that very process still runs."""
    return identify(identity.pid) == identity


def start(component: Component) -> Identity:
    """Start a component in its network namespace, detached from this command.

    ``nsenter`` and not ``ip netns exec``: the latter mounts a fresh /sys, which hides the cgroups.
    nsenter becomes the program by exec, so the pid stays.
    """
    log = Path(component.log)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["nsenter", f"--net=/var/run/netns/{component.netns}", *prioritized(component.priority, component.argv)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": "/root", **component.env},
            start_new_session=True,
        )
    prioritize_session(process.pid, component.priority)
    # Nothing waits for it here: this keeps Popen from warning that it is abandoned.
    process.returncode = 0
    identity = identify(process.pid)
    # A process that died at once has no identity any more; one that can match nothing stands for it.
    return identity or Identity(process.pid, -1, boot_id())


def prioritized(priority: int, argv: list[str]) -> list[str]:
    """Return a command line that runs at a priority: a nice value, so less is more."""
    return ["nice", f"--adjustment={priority}", *argv] if priority else argv


def prioritize_session(pid: int, priority: int) -> None:
    """Give the session that a process leads the weight of a nice value, beside other sessions.

    With the kernel's autogroups (sched(7)) a nice value counts among the processes of one session only, and every
    session weighs the same: a server in a session of its own gains nothing from ``nice``.
    """
    autogroup = Path(f"/proc/{pid}/autogroup")
    try:
        autogroup.write_text(str(priority))
    except (FileNotFoundError, ProcessLookupError):  # a kernel without autogroups, or a process that ended at once
        return


def stop(identities: Iterable[Identity], *, grace: float = 10.0) -> None:
    """End these processes: SIGTERM, then SIGKILL for what is left after ``grace`` seconds."""
    running = [identity for identity in identities if is_running(identity)]
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
        for identity in running:
            _signal(identity, number)
        deadline = time.monotonic() + patience
        while running and time.monotonic() < deadline:
            _reap(running)
            running = [identity for identity in running if is_running(identity)]
            if running:
                time.sleep(0.02)
        if not running:
            return


def _signal(identity: Identity, number: signal.Signals) -> None:
    if is_running(identity):
        try:
            os.kill(identity.pid, number)
        except ProcessLookupError:
            return


def _reap(identities: Iterable[Identity]) -> None:
    """Collect the exit status of those that are children of this very command (in tests they are)."""
    for identity in identities:
        try:
            os.waitpid(identity.pid, os.WNOHANG)
        except ChildProcessError:
            continue


class Records:
    """The records of a cluster's components: one JSON file each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, component: Component, identity: Identity | None) -> None:
        """Store how a component is started and, when it runs, as which process."""
        self._folder.mkdir(parents=True, exist_ok=True)
        data = {"component": asdict(component), "identity": asdict(identity) if identity else None}
        path = self._folder / f"{component.name}.json"
        scratch = path.with_suffix(".tmp")
        scratch.write_text(json.dumps(data, indent=1))
        scratch.rename(path)

    def load(self) -> dict[str, tuple[Component, Identity | None]]:
        """Return every record, in the order in which the components were first started."""
        files = sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        records = [_parse(json.loads(path.read_text())) for path in files]
        return {component.name: (component, identity) for component, identity in records}

    def running(self) -> dict[str, Identity]:
        """Return the components whose recorded process still runs."""
        return {name: i for name, (_, i) in self.load().items() if i is not None and is_running(i)}


def _parse(data: dict[str, Any]) -> tuple[Component, Identity | None]:
    identity = data["identity"]
    return Component(**data["component"]), Identity(**identity) if identity else None
