"""Processes of a test: started in the open, logged to a file, ended by their own id."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tests.support.forked import Forked
from tests.support.wait import DEADLINE, record_wait

T = TypeVar("T")


class Process:
    """One process group."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | Forked
        if command[0].startswith("conch-"):  # a program of ours
            self._process = Forked(command, log, environment)
            return
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                command, stdout=stream, stderr=stream, env=dict(environment), start_new_session=True
            )

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def kill(self) -> None:
        """End it at once, as a lost container."""
        self._signal(signal.SIGKILL)

    def pause(self) -> None:
        """Stop the process until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue the process."""
        self._signal(signal.SIGCONT)

    def stop(self, patience: float = 20) -> int:
        """Send SIGTERM and return the exit status; send SIGKILL after `patience` seconds."""
        self._signal(signal.SIGTERM, group=False)
        try:
            status = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            status = None
        self._signal(signal.SIGKILL)
        return self._process.wait(10) if status is None else status

    def _signal(self, number: signal.Signals, *, group: bool = True) -> None:
        try:
            if group:
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)
        except ProcessLookupError:
            pass
        if number == signal.SIGKILL:
            self._process.wait(10)


def with_own_shared_memory(command: Sequence[str], size: str = "") -> list[str]:
    """Return a command with its own /dev/shm, like that of a container.

    Triton's Python backend leaves its files there when it is killed; these go with the last of its processes.

    Args:
        command: the program and its arguments.
        size: as `mount -o size=` takes it; empty means half of the machine's memory.
    """
    options = f"-o size={size} " if size else ""
    mount = f'mount -t tmpfs {options}shm /dev/shm && exec "$@"'
    return ["unshare", "--user", "--map-root-user", "--mount", "/bin/sh", "-c", mount, "sh", *command]


def until(condition: Callable[[], T | None], what: str, process: Process | None = None, seconds: float = DEADLINE) -> T:
    """Return the first true value of `condition`; fail after the deadline, or when the process it needs has ended."""
    deadline = time.monotonic() + seconds
    with record_wait(what):
        while True:
            value = condition()
            if value:
                return value
            ended = process is not None and not process.running
            if ended or time.monotonic() > deadline:
                tail = "\n" + "\n".join(process.log.read_text().splitlines()[-25:]) if process else ""
                why = "its process ended" if ended else f"not within {seconds} s"
                raise AssertionError(f"{why}: {what}; last seen: {value!r}{tail}")
            time.sleep(0.05)
