"""kubectl-conch from its wheels, in an environment without the operator."""

import re
import subprocess
import sys
from pathlib import Path

from tests.cluster.paths import REPOSITORY

UV = Path(sys.executable).with_name("uv")
DISTRIBUTIONS = ("serving-image/contract", "operator/core", "operator/kubectl")


def run(*command: str | Path) -> str:
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def install_plugin(folder: Path) -> Path:
    """Install the plugin, with the pinned versions of what it requires, and return the folder of its programs."""
    for distribution in DISTRIBUTIONS:
        build = ["build", "--quiet", "--wheel", "--no-build-isolation", "--python", sys.executable]
        run(UV, *build, "--out-dir", folder / "wheels", distribution)
    pinned = folder / "constraints.txt"
    lines = (REPOSITORY / "requirements" / "dev.txt").read_text().splitlines()
    pinned.write_text("".join(re.sub(r" \\$", "\n", line) for line in lines if re.match("[a-z]", line)))
    run(UV, "venv", "--quiet", "--python", sys.executable, folder / "env")
    python = folder / "env" / "bin" / "python"
    wheels = sorted((folder / "wheels").glob("*.whl"))
    run(UV, "pip", "install", "--quiet", "--python", python, "--constraint", pinned, *wheels)
    return python.parent


def test_the_plugin_plans_a_manifest_without_the_operator_on_the_machine(tmp_path: Path) -> None:
    programs = install_plugin(tmp_path)
    assert not (programs / "conch").exists()
    assert "kubectl conch, version " in run(programs / "kubectl-conch", "--version")
    plan = run(programs / "kubectl-conch", "plan", "--filename", "examples/quickstart.yaml")
    assert "Deployment" in plan
