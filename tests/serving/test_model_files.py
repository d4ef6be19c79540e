"""The files around a model arrive where Triton looks for them."""

from __future__ import annotations

import json
import struct
import urllib.request

import pytest

from conch_contract import ModelSource
from tests.serving.onnx_files import multiply
from tests.serving.pod import Pod
from tests.serving.store import Store

CONFIG = b"""
    max_batch_size: 4
    input [{name: "x" data_type: TYPE_FP32 dims: [2]}]
    output [{name: "y" data_type: TYPE_FP32 dims: [2] label_filename: "labels.txt"}]
    model_warmup [{name: "first" batch_size: 1 inputs {
        key: "x" value { data_type: TYPE_FP32 dims: [2] input_data_file: "raw" }
    }}]
"""


def _classes(pod: Pod) -> list[str]:
    inputs = [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 3.0]}]
    outputs = [{"name": "y", "parameters": {"classification": 1}}]
    body = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{pod.http}/v2/models/m/infer", body, timeout=20) as answer:
        return list(json.load(answer)["outputs"][0]["data"])


@pytest.mark.parametrize("versions", ["flat", "folders"])
def test_labels_and_warm_up_data_are_found(store: Store, pod: Pod, versions: str) -> None:
    model = "m.onnx" if versions == "flat" else "7/m.onnx"
    files = {"config.pbtxt": CONFIG, model: multiply(2), "labels.txt": b"cat\ndog\n"}
    files["warmup/raw"] = struct.pack("<2f", 1, 2)
    store.put("models", {f"beside-{versions}/{name}": content for name, content in files.items()})
    pod.write_secret(store.secret)
    pod.write_manifest(ModelSource(name="m", format="onnx", storage_uri=f"s3://models/beside-{versions}"))
    pod.start()
    pod.until_ready()
    assert _classes(pod) == ["6.000000:1:dog"]
