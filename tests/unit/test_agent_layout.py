"""Layout is planned from names alone: tables of what users keep and what Triton reads."""

from __future__ import annotations

import doctest
from pathlib import Path, PurePosixPath

import pytest

from conch_agent import layout
from conch_agent.layout import MARKER, lay, plan
from conch_agent.reasons import Failure, Reason
from conch_contract.manifest import ModelFormat


def _plan(kind: ModelFormat, *names: str) -> dict[str, str]:
    planned = plan(kind, [PurePosixPath(name) for name in names], "s3://b/m")
    return {str(target): str(source) for target, source in planned.files.items()}


def test_the_examples_in_the_docstrings() -> None:
    assert doctest.testmod(layout).failed == 0


@pytest.mark.parametrize(
    ("kind", "found", "laid"),
    [
        ("onnx", ["any.onnx"], {"1/model.onnx": "any.onnx"}),
        ("onnx", ["model.onnx", "other.onnx"], {"1/model.onnx": "model.onnx", "1/other.onnx": "other.onnx"}),
        ("onnx", ["m.onnx", "m.onnx.data"], {"1/model.onnx": "m.onnx", "1/m.onnx.data": "m.onnx.data"}),
        ("onnx", ["config.pbtxt", "model.onnx"], {"1/model.onnx": "model.onnx"}),
        ("onnx", ["1/a.onnx", "7/model.onnx"], {"1/model.onnx": "1/a.onnx", "7/model.onnx": "7/model.onnx"}),
        ("python", ["model.py", "lib/x.py"], {"1/model.py": "model.py", "1/lib/x.py": "lib/x.py"}),
        ("python", ["2/model.py", "README.md"], {"2/model.py": "2/model.py"}),
        ("sklearn", ["model.pkl"], {"1/model.pkl": "model.pkl"}),
        ("triton", ["config.pbtxt", "1/model.plan"], {"1/model.plan": "1/model.plan"}),
        ("triton", ["zoo/config.pbtxt", "zoo/1/x"], {"1/x": "zoo/1/x"}),
        ("triton", ["LICENSE", "README.md", "zoo/config.pbtxt", "zoo/1/x"], {"1/x": "zoo/1/x"}),
        ("triton", ["config.pbtxt"], {}),
        ("triton", ["1/m.onnx", "labels.txt"], {"1/m.onnx": "1/m.onnx", "labels.txt": "labels.txt"}),
        ("onnx", [MARKER, "model.onnx"], {"1/model.onnx": "model.onnx"}),
    ],
)
def test_what_is_found_is_laid_out(kind: ModelFormat, found: list[str], laid: dict[str, str]) -> None:
    assert _plan(kind, *found) == laid


@pytest.mark.parametrize(
    ("kind", "found", "expected"),
    [
        ("onnx", ["a.onnx", "b.onnx"], "one .onnx file"),
        ("onnx", ["saved_model.pb"], "one .onnx file"),
        ("onnx", ["1/model.onnx", "2/readme"], "version folders"),
        ("onnx", ["01/model.onnx"], "version folders"),
        ("python", ["main.py"], "model.py"),
        ("sklearn", ["iris.joblib"], "model.joblib"),
        ("triton", ["a/config.pbtxt", "b/config.pbtxt"], "a Triton model folder"),
        ("triton", ["labels.txt", "zoo/config.pbtxt"], "a Triton model folder"),
    ],
)
def test_what_is_no_model_is_named(kind: ModelFormat, found: list[str], expected: str) -> None:
    with pytest.raises(Failure) as raised:
        _plan(kind, *found)
    assert raised.value.reason == Reason.NOT_A_MODEL
    assert expected in raised.value.message
    assert found[0] in raised.value.message


def test_versions_are_found() -> None:
    planned = plan("triton", [PurePosixPath(name) for name in ("1/x", "10/x", "2/x", "notes/x")], "s3://b/m")
    assert planned.versions == (1, 2, 10)


def test_a_folder_is_replaced_whole_and_the_old_files_stay_as_they_were(tmp_path: Path) -> None:
    source, target = tmp_path / "files", tmp_path / "repository" / "m"
    target.parent.mkdir()
    source.mkdir()
    for round_ in ("old", "new"):
        (source / "model.onnx").unlink(missing_ok=True)
        (source / "model.onnx").write_text(round_)
        planned = plan("onnx", [PurePosixPath("model.onnx")], "s3://b/m")
        held = (target / "1" / "model.onnx").open() if target.exists() else None
        lay(planned, source, tmp_path / "laid", target, config=f"name: {round_}", marker={})
    assert held
    assert held.read() == "old"
    held.close()
    assert (target / "1" / "model.onnx").read_text() == "new"
    assert (target / "config.pbtxt").read_text() == "name: new"
    assert [path.name for path in tmp_path.iterdir()].count("laid") == 0
