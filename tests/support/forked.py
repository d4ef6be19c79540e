"""Programs of ours as processes whose imports are done: they take most of a start.

The operator takes 1.2 s of processor time until it works, the agent 0.7 s, and a run of the api tier starts them some
300 times. Python's fork server imports once for each worker of pytest. What it forks is a process like any other: with
an id, an environment, signals and an exit status of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Final

from kubernetes_asyncio.config import kube_config

# The console scripts of the packages' pyproject.toml.
_PROGRAMS: Final = {
    "conch": "conch.controller",
    "conch-metrics": "conch.metrics.main",
    "conch-agent": "conch_agent.main",
}
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload([*sorted(_PROGRAMS.values()), "conch_agent.program"])  # which conch-agent imports late


class Forked:
    """One process, with the methods of `subprocess.Popen` that tests use. It ends with the process that made it."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        """Start a program by its name, as the leader of a process group; its output is appended to `log`."""
        log.touch()  # it can be read at once
        arguments = (list(command), str(log), dict(environment))
        self._process = _server.Process(target=_run, args=arguments, daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit status; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; return the exit status.

        Raises:
            subprocess.TimeoutExpired: it goes on.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended.

        The fork server reaps it, and passes the exit status on a moment later: until then no process has the id.
        """
        if self._process.exitcode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def _run(command: list[str], log: str, environment: dict[str, str]) -> None:
    """Be the program, in the new process."""
    os.setsid()
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(out, stream.fileno())
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # it is a TextIOWrapper here
    os.close(out)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = command
    # kubernetes_asyncio reads this variable while it is imported, which was in the fork server.
    kube_config.KUBE_CONFIG_DEFAULT_LOCATION = environment.get("KUBECONFIG", "")
    import_module(_PROGRAMS[command[0]]).main()
