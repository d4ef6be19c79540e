"""Layout is planned from names alone: tables of what users keep and what Triton reads."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from conch_agent.config import parse_config
from conch_agent.layout import MARKER, build_folder, plan_layout
from conch_agent.model_files import read_names
from conch_agent.reasons import Failure, Reason
from conch_contract.formats import FormatName


def _plan(kind: FormatName, *names: str, config: str = "") -> dict[str, str]:
    named = read_names(parse_config(config, "s3://b/m"), "s3://b/m")
    planned = plan_layout(kind, [PurePosixPath(name) for name in names], "s3://b/m", named)
    return {str(target): str(source) for target, source in planned.files.items()}


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
def test_the_files_of_a_model_are_laid_out(kind: FormatName, found: list[str], laid: dict[str, str]) -> None:
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
        ("triton", ["labels.txt", "zoo/config.pbtxt"], "such as s3://b/m/zoo"),
        ("triton", ["labels.txt", "weights.bin"], "a Triton model folder"),
        ("onnx", ["zoo/config.pbtxt", "zoo/1/model.onnx"], "set modelFormat.name to triton"),
        ("python", ["a/1/model.py", "b/1/model.py"], "such as s3://b/m/a"),
    ],
)
def test_a_folder_that_is_no_model_is_an_error_with_what_is_expected(
    kind: FormatName, found: list[str], expected: str
) -> None:
    with pytest.raises(Failure) as raised:
        _plan(kind, *found)
    assert raised.value.reason == Reason.NOT_A_MODEL
    assert expected in raised.value.message
    assert found[0] in raised.value.message


@pytest.mark.parametrize(
    ("found", "models", "first"),
    [
        (["a/config.pbtxt", "b/config.pbtxt"], "2 models (a, b)", "a"),
        (["zoo/a/1/model.onnx", "zoo/b/1/model.onnx", "zoo/README.md"], "2 models (zoo/a, zoo/b)", "zoo/a"),
        (["ens/config.pbtxt", "ens/1/x", "pre/1/model.py", "pre/lib/2/x", "z/config.pbtxt"], "(ens, pre, z)", "ens"),
        ([f"m{number:02}/config.pbtxt" for number in range(12)], "m07 and 4 more)", "m00"),
    ],
)
def test_a_model_repository_is_named_with_its_models_and_the_way_out(found: list[str], models: str, first: str) -> None:
    with pytest.raises(Failure) as raised:
        _plan("triton", *found)
    assert raised.value.reason == Reason.SEVERAL_MODELS
    for part in ("Triton model repository", models, f"such as s3://b/m/{first}.", "modelFormat.name to repository"):
        assert part in raised.value.message


def test_versions_are_found() -> None:
    planned = plan_layout("triton", [PurePosixPath(name) for name in ("1/x", "10/x", "2/x", "notes/x")], "s3://b/m")
    assert planned.versions == (1, 2, 10)


def test_a_folder_is_replaced_whole_and_the_old_files_stay_as_they_were(tmp_path: Path) -> None:
    source, target = tmp_path / "files", tmp_path / "repository" / "m"
    target.parent.mkdir()
    source.mkdir()
    for round_ in ("old", "new"):
        (source / "model.onnx").unlink(missing_ok=True)
        (source / "model.onnx").write_text(round_)
        planned = plan_layout("onnx", [PurePosixPath("model.onnx")], "s3://b/m")
        held = (target / "1" / "model.onnx").open() if target.exists() else None
        build_folder(
            planned, source, tmp_path / "laid", target, tmp_path / "trash", config=f"name: {round_}", marker={}
        )
    assert held
    assert held.read() == "old"
    held.close()
    assert (target / "1" / "model.onnx").read_text() == "new"
    assert (target / "config.pbtxt").read_text() == "name: new"
    assert [path.name for path in tmp_path.iterdir()].count("laid") == 0


BESIDE = ["labels.txt", "env.tar.gz", "warmup/raw", "initial_state/zeros", "assets/deep/table"]


@pytest.mark.parametrize(
    ("kind", "model"), [("onnx", "m.onnx"), ("python", "model.py"), ("sklearn", "model.pkl"), ("triton", "model.plan")]
)
def test_files_beside_version_folders_are_carried(kind: FormatName, model: str) -> None:
    laid = _plan(kind, "README.md", "config.pbtxt", f"1/{model}", f"2/{model}", "2/vocabulary", *BESIDE)
    assert {name: laid[name] for name in BESIDE} == {name: name for name in BESIDE}
    assert laid["2/vocabulary"] == "2/vocabulary"


CONFIG = """
    output [{name: "y" label_filename: "labels.txt"}]
    parameters { key: "EXECUTION_ENV_PATH" value { string_value: "$$TRITON_MODEL_DIRECTORY/env.tar.gz" } }
    model_warmup [{name: "w" inputs { key: "x" value { input_data_file: "raw" } }}]
    sequence_batching { state [{initial_state [{name: "s" data_file: "zeros"}]}] }
"""


def test_files_of_the_configuration_lie_beside_a_model_without_version_folders() -> None:
    laid = _plan("python", "config.pbtxt", "model.py", "lib/x.py", *BESIDE, config=CONFIG)
    for name in BESIDE:
        assert laid[f"1/{name}"] == name
        assert laid.get(name) == (None if name == "assets/deep/table" else name)
    assert "lib/x.py" not in laid


@pytest.mark.parametrize(
    ("kind", "config", "found", "model"),
    [
        (
            "onnx",
            'default_model_filename: "b.onnx"',
            ["a.onnx", "b.onnx"],
            {"1/a.onnx": "a.onnx", "1/b.onnx": "b.onnx"},
        ),
        (
            "onnx",
            'default_model_filename: "b.onnx"',
            ["1/b.onnx", "2/b.onnx"],
            {"1/b.onnx": "1/b.onnx", "2/b.onnx": "2/b.onnx"},
        ),
        (
            "onnx",
            'default_model_filename: "a"',
            ["a/model.onnx", "a/w"],
            {"1/a/model.onnx": "a/model.onnx", "1/a/w": "a/w"},
        ),
        ("onnx", 'default_model_filename: "x/b.onnx"', ["x/b.onnx"], {"1/x/b.onnx": "x/b.onnx"}),
        (
            "onnx",
            'cc_model_filenames { key: "8.0" value: "a.onnx" }',
            ["a.onnx", "model.onnx"],
            {"1/a.onnx": "a.onnx", "1/model.onnx": "model.onnx"},
        ),
        ("onnx", 'cc_model_filenames { key: "8.0" value: "a.onnx" }', ["a.onnx"], {"1/a.onnx": "a.onnx"}),
        ("python", 'default_model_filename: "main.py"', ["main.py"], {"1/main.py": "main.py"}),
        ("sklearn", 'default_model_filename: "iris.joblib"', ["iris.joblib"], {"1/iris.joblib": "iris.joblib"}),
    ],
)
def test_the_file_that_the_configuration_names_is_the_model(
    kind: FormatName, config: str, found: list[str], model: dict[str, str]
) -> None:
    assert _plan(kind, *found, config=config) == model


@pytest.mark.parametrize(
    ("kind", "config", "found", "part"),
    [
        ("onnx", 'default_model_filename: "b.onnx"', ["model.onnx"], "'b.onnx', which default_model_filename"),
        ("onnx", 'default_model_filename: "b.onnx"', ["1/b.onnx", "2/model.onnx"], "version 2 lacks 'b.onnx'"),
        ("sklearn", 'default_model_filename: "b.pkl"', ["model.pkl"], "'b.pkl'"),
        ("onnx", "", ["a.onnx", "b.onnx"], "name one in default_model_filename"),
        ("python", "", ["1/model.py", "3d-assets/x"], "takes a folder whose name begins with a number for a version"),
    ],
)
def test_a_file_that_the_configuration_names_and_the_store_lacks_is_reported(
    kind: FormatName, config: str, found: list[str], part: str
) -> None:
    with pytest.raises(Failure) as raised:
        _plan(kind, *found, config=config)
    assert raised.value.reason == Reason.NOT_A_MODEL
    assert part in raised.value.message


@pytest.mark.parametrize(
    "config",
    [
        'default_model_filename: "../../other/1/model.onnx"',
        'default_model_filename: "/etc/passwd"',
        'cc_model_filenames { key: "8.0" value: "../x" }',
        'output [{label_filename: "../labels.txt"}]',
        'parameters { key: "EXECUTION_ENV_PATH" value { string_value: "$$TRITON_MODEL_DIRECTORY/../env" } }',
        'model_warmup [{inputs { key: "x" value { input_data_file: "../../raw" } }}]',
    ],
)
def test_a_configuration_names_files_of_its_own_model_only(config: str) -> None:
    with pytest.raises(Failure) as raised:
        read_names(parse_config(config, "s3://b/m"), "s3://b/m")
    assert raised.value.reason == Reason.INVALID_CONFIG
    assert "relative" in raised.value.message
