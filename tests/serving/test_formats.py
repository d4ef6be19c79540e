"""Every format is laid out, loaded and answers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from conch_contract import ModelSource, ModelState, TritonConfig, VersionPolicy
from tests.serving import tools
from tests.serving.pod import Pod
from tests.serving.store import Store

DOUBLE = """
import numpy as np
import triton_python_backend_utils as pb_utils
from factor import FACTOR

class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [-1]})
        config.add_output({"name": "y", "data_type": "TYPE_FP32", "dims": [-1]})
        config.set_max_batch_size(0)
        return config

    def execute(self, requests):
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor("y", pb_utils.get_input_tensor_by_name(r, "x").as_numpy() * np.float32(FACTOR))]
            )
            for r in requests
        ]
"""
TRAIN = """
import json, sys
import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import LinearRegression

data = load_iris()
kind = sys.argv[2]
names = data.target_names[data.target]
target = {"number": data.target, "text": names, "regression": data.data[:, 0] * 2.0}[kind]
model = (LinearRegression() if kind == "regression" else LogisticRegression(max_iter=1000)).fit(data.data, target)
joblib.dump(model, sys.argv[1])
rows = data.data[::30]
answer = {"rows": rows.tolist(), "label": model.predict(rows).tolist()}
if kind != "regression":
    answer["probability"] = model.predict_proba(rows).tolist()
print(json.dumps(answer))
"""
X = [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1.5, 2.0]}]


def test_python(store: Store, pod: Pod) -> None:
    store.put("models", {"double/model.py": DOUBLE.encode(), "double/factor.py": b"FACTOR = 2"})
    pod.write_secret(store.secret)
    pod.write_manifest(ModelSource(name="double", format="python", storage_uri="s3://models/double"))
    pod.start()
    pod.until_ready()
    assert pod.infer("double", X) == {"y": [3.0, 4.0]}


@pytest.mark.parametrize("kind", ["number", "text", "regression"])
def test_sklearn(store: Store, pod: Pod, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "model.joblib"
    python = tools.triton().interpreter / "bin" / "python"
    output = subprocess.run([str(python), "-c", TRAIN, str(file), kind], capture_output=True, text=True, check=True)
    expected = json.loads(output.stdout)
    store.put("models", {f"iris-{kind}/model.joblib": file})
    pod.write_secret(store.secret)
    pod.write_manifest(ModelSource(name="iris", format="sklearn", storage_uri=f"s3://models/iris-{kind}"))
    pod.start()
    pod.until_ready()
    rows = np.array(expected["rows"])
    answer = pod.infer(
        "iris", [{"name": "input", "datatype": "FP32", "shape": list(rows.shape), "data": rows.ravel().tolist()}]
    )
    if kind == "regression":
        np.testing.assert_allclose(answer["label"], expected["label"], rtol=1e-5)
        assert "probability" not in answer
    else:
        assert answer["label"] == expected["label"]
        np.testing.assert_allclose(answer["probability"], np.ravel(expected["probability"]), rtol=1e-3, atol=1e-5)


def test_triton_folder_with_its_own_configuration(store: Store, pod: Pod) -> None:
    config = b"""
        name: "someone-elses-name"
        backend: "python"
        max_batch_size: 16
        parameters { key: "team" value { string_value: "vision" } }
        version_policy { all {} }
    """
    plain = DOUBLE.replace("config.set_max_batch_size(0)", "pass").encode()
    files = {"config.pbtxt": config}
    for version in ("1", "2"):
        files[f"{version}/model.py"] = plain
        files[f"{version}/factor.py"] = f"FACTOR = {version}0".encode()
    store.put("models", {f"zoo/inner/{name}": content for name, content in files.items()})
    pod.write_secret(store.secret)
    typed = TritonConfig(max_batch_size=8)
    pod.write_manifest(ModelSource(name="zoo", format="triton", storage_uri="s3://models/zoo", config=typed))
    pod.start()
    pod.until_ready()
    merged = pod.triton_config("zoo")
    assert merged["name"] == "zoo"
    assert merged["max_batch_size"] == 8
    assert merged["parameters"]["team"]["string_value"] == "vision"
    states = {version.version: version.state for version in pod.model("zoo").versions}
    assert states == {1: ModelState.READY, 2: ModelState.READY}
    batch = [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]
    assert pod.infer("zoo", batch, "1") == {"y": [10.0, 20.0]}
    assert pod.infer("zoo", batch, "2") == {"y": [20.0, 40.0]}


def test_a_version_policy_that_is_typed_wins(store: Store, pod: Pod) -> None:
    files = {f"three/{version}/model.py": DOUBLE.encode() for version in (1, 2, 3)}
    files |= {f"three/{version}/factor.py": f"FACTOR = {version}".encode() for version in (1, 2, 3)}
    store.put("models", files)
    pod.write_secret(store.secret)
    typed = TritonConfig(version_policy=VersionPolicy(specific=(1, 3)))
    pod.write_manifest(ModelSource(name="m", format="python", storage_uri="s3://models/three", config=typed))
    pod.start()
    pod.until_ready()
    ready = [version.version for version in pod.model().versions if version.state == ModelState.READY]
    assert ready == [1, 3]


@pytest.mark.parametrize("scheme", ["pvc", "file"])
def test_a_folder_that_is_mounted(pod: Pod, magika_onnx: Path, scheme: str) -> None:
    folder = pod.root / "pvc" / "claim" / "models"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(magika_onnx.read_bytes())
    uri = "pvc://claim/models" if scheme == "pvc" else f"file://{folder}"
    pod.write_manifest(ModelSource(name="m", format="onnx", storage_uri=uri))
    pod.start()
    pod.until_ready()
    assert (pod.repository / "m" / "1" / "model.onnx").stat().st_ino == (folder / "model.onnx").stat().st_ino


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ('default_model_filename: "second.joblib"', ""),
        ('output [{name: "score" data_type: TYPE_FP32 dims: [1]}]', "names the outputs ['score']"),
        ("model_transaction_policy { decoupled: true }", "decoupled"),
    ],
)
def test_sklearn_obeys_or_refuses_its_configuration(
    store: Store, pod: Pod, tmp_path: Path, config: str, part: str
) -> None:
    python = str(tools.triton().interpreter / "bin" / "python")
    for name, kind in (("model.joblib", "number"), ("second.joblib", "text")):
        subprocess.run([python, "-c", TRAIN, str(tmp_path / name), kind], capture_output=True, check=True)
    folder = f"iris-config-{len(config)}"
    files: dict[str, bytes | Path] = {name: tmp_path / name for name in ("model.joblib", "second.joblib")}
    files["config.pbtxt"] = config.encode()
    store.put("models", {f"{folder}/{name}": content for name, content in files.items()})
    pod.write_secret(store.secret)
    pod.write_manifest(ModelSource(name="iris", format="sklearn", storage_uri=f"s3://models/{folder}"))
    pod.start()
    if part:
        assert part in pod.until_reason("LoadFailed", "iris").message
        return
    pod.until_ready()
    rows = [{"name": "input", "datatype": "FP32", "shape": [1, 4], "data": [5.1, 3.5, 1.4, 0.2]}]
    assert pod.infer("iris", rows)["label"] == ["setosa"]
