"""The benchmark runs, and its figures are those of what it counts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.paths import REPOSITORY

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


def test_the_benchmark_measures_the_reference_and_the_operator(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    command = [sys.executable, "-m", "tests.bench", "--services", "3", "--rounds", "1", "--output", str(output)]
    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=500)
    reference, conch = json.loads(output.read_text())
    assert (reference["who"], conch["who"]) == ("R", "conch")
    assert reference["writes_each"] == 7, "six children and a status"
    assert conch["writes_each"] >= 7
    assert conch["cpu_seconds"] > 0
