"""`kubectl conch`, as a person types it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from conch.cli.loadtest.driver import CLIENT
from tests.cluster import clients
from tests.cluster.processes import prioritize_session, prioritized
from tests.support.place import Place

# All pods of the local cluster weigh sixteen times as much as a process of this machine (tests/cluster/cgroups.py). At
# this priority a load run weighs half as much as they do together, and keeps to its schedule.
_PRIORITY: Final = -10


def start(place: Place, *words: str) -> subprocess.Popen[str]:
    """Start `kubectl conch ...` in a session of its own, as a terminal has it; the caller waits for its end.

    It has priority over the other processes of this machine, as on a user's machine, which does not run the cluster.
    """
    assert place.local is not None
    kubectl, config = clients.program("kubectl"), str(place.local.kubeconfig)
    path = os.pathsep.join((str(kubectl.parent), str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = {**os.environ, "PATH": path, "KUBECONFIG": config}
    process = subprocess.Popen(
        prioritized(_PRIORITY, [str(kubectl), "conch", *words]),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    prioritize_session(process.pid, _PRIORITY)
    return process


def count_unserved(run: dict[str, Any]) -> int:
    """Return the requests of a load run that its service failed, or was too slow to take.

    Those that the client was too slow to send are not among them: that is this machine's doing.
    """
    taken_late = sum(reason["count"] for reason in run["lateReasons"] if reason["message"] != CLIENT)
    return int(run["failed"] + taken_late)
