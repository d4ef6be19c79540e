"""The environment of a model that needs packages no more: its space is free again."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from conch_agent.prepare import Preparation
from conch_agent.settings import Settings
from conch_contract import ModelSource
from tests.support.wheels import build_wheel

PACKAGES = """
backend: "python"
parameters { key: "EXECUTION_ENV_PATH" value { string_value: "$$TRITON_MODEL_DIRECTORY/requirements.txt" } }
"""


class Pod:
    """A pod that mounts the claim of a model's files."""

    def __init__(self, root: Path) -> None:
        self.settings = Settings(root=root)
        for folder in (self.settings.repository, self.settings.downloads, self.settings.decrypted):
            folder.mkdir(parents=True)

    def prepare(self, config: str, wheels: dict[str, bytes]) -> None:
        """Prepare the model of a Python file, with packages that lie beside it."""
        files = self.settings.pvc / "claim"
        shutil.rmtree(files, ignore_errors=True)
        (files / "1").mkdir(parents=True)
        (files / "wheels").mkdir()
        (files / "config.pbtxt").write_text(config)
        (files / "1" / "model.py").write_text("class TritonPythonModel: ...\n")
        (files / "requirements.txt").write_text("factor==3.0\n")
        for name, content in wheels.items():
            (files / "wheels" / name).write_bytes(content)
        source = ModelSource(name="m", format="triton", storage_uri="pvc://claim")
        asyncio.run(Preparation(source, self.settings).prepare(None))

    def find_packages(self) -> list[Path]:
        """The files of the package, in the pod's own folders and in the model folder."""
        return sorted(path for path in self.settings.repository.parent.rglob("factor.py") if path.is_file())


def test_packages_that_a_model_needs_no_more_are_deleted(tmp_path: Path) -> None:
    pod = Pod(tmp_path)
    name, content = build_wheel("factor", "3.0", {"factor.py": "FACTOR = 3"})
    pod.prepare(PACKAGES, {name: content})
    assert [path.relative_to(tmp_path).parts[1] for path in pod.find_packages()] == ["downloads", "repository"]
    pod.prepare('backend: "python"\n', {})
    assert pod.find_packages() == []
