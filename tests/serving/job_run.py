"""A run of a revision Job's program, with the mounts of the Job's pod."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Generic

from conch_contract import ModelManifest, ModelSource
from conch_contract.revision_jobs import Report_co, RevisionJob
from tests.serving.pod import Pod
from tests.serving.store import Store


class JobRun(Generic[Report_co]):
    """A run in a root of its own: the agents of the pods do not read the Job's manifest.

    Attributes:
        status: Exit status of the program.
        line: Line of its log.
        report: Its termination message.
    """

    def __init__(
        self,
        row: RevisionJob[Report_co],
        folder: Path,
        source: ModelSource | ModelManifest,
        *options: str,
        store: Store | None = None,
    ) -> None:
        root, message = Pod(Path(tempfile.mkdtemp(dir=folder))), folder / "termination-log"
        if isinstance(source, ModelManifest):
            root.write_whole_manifest(source)
        else:
            root.write_manifest(source)
        root.write_config_map("empty", {})
        if store:
            root.write_secret(store.secret)
        command = [
            str(Path(sys.executable).with_name(row.program)),
            *options,
            f"--root={root.root}",
            f"--scratch={folder / 'scratch'}",
            f"--message={message}",
        ]
        environment = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        run = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False, env=environment)
        self.status, self.line = run.returncode, run.stdout
        assert message.exists(), run.stderr
        assert message.stat().st_size <= 4096
        self.report = row.report.model_validate_json(message.read_text())
