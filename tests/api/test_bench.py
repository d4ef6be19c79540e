"""The benchmark runs, and its figures are those of what it counts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.paths import REPOSITORY

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def test_the_benchmark_measures_the_reference_and_the_operator(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    command = [sys.executable, "-m", "tests.bench", "--services", "3", "--rounds", "1", "--output", str(output)]
    tables = subprocess.run(command, cwd=REPOSITORY, check=True, timeout=800, stdout=subprocess.PIPE, text=True).stdout
    runs = {(run["measurement"], run["who"]): run for run in json.loads(output.read_text())}
    compared = [(measurement, who) for measurement in ("burst", "paced", "restart") for who in ("R", "conch")]
    assert set(runs) == {*compared, ("edits", "conch"), ("idle", "conch")}
    assert all(f"{measurement}, 3 services" in tables for measurement, _ in runs if measurement != "idle")
    assert "idle, no service" in tables
    for measurement in ("burst", "paced"):
        reference, conch = runs[measurement, "R"], runs[measurement, "conch"]
        assert reference["writes_each"] == reference["writes_until_present"] == 7, "six children and a status"
        assert 7 == conch["writes_until_present"] <= conch["writes_each"]
        assert conch["cpu_ms_per_child"] > 0
    assert runs["edits", "conch"]["edits"] >= 2, "one of each user"
    assert min(runs["idle", "conch"][f"{who}_percent"] for who in ("leader", "standby")) > 0, "both run"
    assert runs["restart", "R"]["writes"] == runs["restart", "conch"]["writes"] == 0
