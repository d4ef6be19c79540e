"""Model repositories in the layouts that Triton's users have: of its quick start, an ensemble, BLS and TensorRT-LLM."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from tests.serving.onnx_files import multiply
from tests.support.clients import Tensors
from tests.support.pipeline import PIPELINE

X: Final = np.array([[1.5, 2.0]], dtype=np.float32)
TEXT: Final = np.array([[b"to be or not"]], dtype=object)


@dataclass(frozen=True)
class Layout:
    """A repository, and requests with the right answers.

    Attributes:
        entry: The model that clients call.
        files: The repository.
        requests: Inputs and the check of the answer, by model.
    """

    entry: str
    files: Mapping[str, bytes]
    requests: Mapping[str, tuple[Tensors, Callable[[Tensors], bool]]] = field(default_factory=dict)


def tensors(kind: str, **shapes: str) -> str:
    """Return inputs or outputs of a config.pbtxt, of type and dims by name."""
    return "".join(
        f'{kind} {{ name: "{name}" data_type: TYPE_{shape.partition(" ")[0]} dims: [ {shape.partition(" ")[2]} ] }}\n'
        for name, shape in shapes.items()
    )


def program(body: str) -> bytes:
    """Return a Python model; `body` computes `answers`, a list of output tensors, from `request`."""
    lines = "".join(f"            {line}\n" for line in body.strip().splitlines())
    return f"""
import json

import numpy as np
import triton_python_backend_utils as pb_utils


def read(request, name):
    return pb_utils.get_input_tensor_by_name(request, name).as_numpy()


class TritonPythonModel:
    def initialize(self, args):
        self.parameters = {{k: v["string_value"] for k, v in json.loads(args["model_config"])["parameters"].items()}}

    def execute(self, requests):
        responses = []
        for request in requests:
{lines}            responses.append(pb_utils.InferenceResponse(answers))
        return responses
""".encode()


def python(inputs: str, outputs: str, more: str = "") -> bytes:
    """Return the config.pbtxt of a Python model that batches."""
    return f'backend: "python"\nmax_batch_size: 8\n{inputs}{outputs}{more}'.encode()


_ONNX: Final = 'platform: "onnxruntime_onnx"\nmax_batch_size: 8\n'
# Folders side by side, of which none calls another: clients call each.
QUICK_START: Final = Layout(
    entry="simple",
    files={
        "simple/config.pbtxt": (_ONNX + tensors("input", x="FP32 2") + tensors("output", y="FP32 2")).encode(),
        "simple/1/model.onnx": multiply(2),
        "classifier/config.pbtxt": (
            _ONNX
            + tensors("input", x="FP32 2")
            + 'output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] label_filename: "labels.txt" }'
        ).encode(),
        "classifier/labels.txt": b"cat\ndog\n",
        "classifier/1/model.onnx": multiply(3),
        "identity/config.pbtxt": python(tensors("input", x="STRING -1"), tensors("output", y="STRING -1")),
        "identity/1/model.py": program('answers = [pb_utils.Tensor("y", read(request, "x"))]'),
    },
    requests={
        "simple": ({"x": X}, lambda answer: bool((answer["y"] == 2 * X).all())),
        "classifier": ({"x": X}, lambda answer: bool((answer["y"] == 3 * X).all())),
        "identity": ({"x": TEXT}, lambda answer: answer["y"].tolist() == TEXT.tolist()),
    },
)
ENSEMBLE: Final = Layout(
    entry="pipeline",
    files=PIPELINE,
    requests={"pipeline": ({"x": X}, lambda answer: bool((answer["y"] == 2 * (X + 1) + 1).all()))},
)
BLS: Final = Layout(
    entry="bls_sync",
    files={
        "add_sub/config.pbtxt": python(
            tensors("input", a="FP32 2", b="FP32 2"), tensors("output", sum="FP32 2", difference="FP32 2")
        ),
        "add_sub/1/model.py": program(
            """
a, b = read(request, "a"), read(request, "b")
answers = [pb_utils.Tensor("sum", a + b), pb_utils.Tensor("difference", a - b)]
"""
        ),
        "bls_sync/config.pbtxt": python(tensors("input", a="FP32 2", b="FP32 2"), tensors("output", sum="FP32 2")),
        "bls_sync/1/model.py": program(
            """
inputs = [pb_utils.Tensor(name, read(request, name)) for name in ("a", "b")]
inner = pb_utils.InferenceRequest(model_name="add_sub", requested_output_names=["sum"], inputs=inputs)
answers = [pb_utils.get_output_tensor_by_name(inner.exec(), "sum")]
"""
        ),
    },
    requests={"bls_sync": ({"a": X, "b": X}, lambda answer: bool((answer["sum"] == 2 * X).all()))},
)
_LLM: Final = tensors("input", text_input="STRING 1", max_tokens="INT32 1") + tensors("output", text_output="STRING 1")
_TOKENS: Final = {"input_ids": "INT32 -1", "request_output_len": "INT32 1"}


def _step(model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> str:
    rows = [f'input_map {{ key: "{key}" value: "{value}" }}' for key, value in inputs.items()]
    rows += [f'output_map {{ key: "{key}" value: "{value}" }}' for key, value in outputs.items()]
    return f'step {{ model_name: "{model}" model_version: -1 {" ".join(rows)} }}'


# The engine's stand-in returns the first tokens again; a token is the length of a word.
TENSORRT_LLM: Final = Layout(
    entry="ensemble",
    files={
        "ensemble/config.pbtxt": (
            f'platform: "ensemble"\nmax_batch_size: 8\n{_LLM}ensemble_scheduling {{'
            + _step(
                "preprocessing",
                {"QUERY": "text_input", "REQUEST_OUTPUT_LEN": "max_tokens"},
                {"INPUT_ID": "_INPUT_ID", "OUTPUT_LEN": "_OUTPUT_LEN"},
            )
            + _step(
                "tensorrt_llm",
                {"input_ids": "_INPUT_ID", "request_output_len": "_OUTPUT_LEN"},
                {"output_ids": "_TOKENS"},
            )
            + _step("postprocessing", {"TOKENS_BATCH": "_TOKENS"}, {"OUTPUT": "text_output"})
            + "}"
        ).encode(),
        "ensemble/1/.gitkeep": b"",
        "preprocessing/config.pbtxt": python(
            tensors("input", QUERY="STRING 1", REQUEST_OUTPUT_LEN="INT32 1"),
            tensors("output", INPUT_ID="INT32 -1", OUTPUT_LEN="INT32 1"),
            'parameters { key: "tokenizer_dir" value { string_value: "words" } }',
        ),
        "preprocessing/1/model.py": program(
            """
tokens = [len(word) for word in read(request, "QUERY")[0][0].split()]
answers = [
    pb_utils.Tensor("INPUT_ID", np.array([tokens], dtype=np.int32)),
    pb_utils.Tensor("OUTPUT_LEN", read(request, "REQUEST_OUTPUT_LEN")),
]
"""
        ),
        "tensorrt_llm/config.pbtxt": python(
            tensors("input", **_TOKENS),
            tensors("output", output_ids="INT32 -1"),
            'parameters { key: "gpt_model_path" value { string_value: "engines" } }',
        ),
        "tensorrt_llm/1/model.py": program(
            """
count = int(read(request, "request_output_len")[0][0])
answers = [pb_utils.Tensor("output_ids", read(request, "input_ids")[:, :count])]
"""
        ),
        "tensorrt_llm/1/rank0.engine": b"\0" * 1024,
        "tensorrt_llm/1/config.json": b"{}",
        "postprocessing/config.pbtxt": python(
            tensors("input", TOKENS_BATCH="INT32 -1"), tensors("output", OUTPUT="STRING 1")
        ),
        "postprocessing/1/model.py": program(
            """
text = " ".join(map(str, read(request, "TOKENS_BATCH")[0]))
answers = [pb_utils.Tensor("OUTPUT", np.array([[text.encode()]], dtype=object))]
"""
        ),
        "tensorrt_llm_bls/config.pbtxt": python(
            tensors("input", text_input="STRING 1", max_tokens="INT32 1"),
            tensors("output", text_output="STRING 1"),
            'parameters { key: "tensorrt_llm_model_name" value { string_value: "tensorrt_llm" } }',
        ),
        "tensorrt_llm_bls/1/model.py": program(
            """
from lib.decode import decode
answers = [decode(request, self.parameters["tensorrt_llm_model_name"])]
"""
        ),
        "tensorrt_llm_bls/1/lib/__init__.py": b"",
        "tensorrt_llm_bls/1/lib/decode.py": b"""
import triton_python_backend_utils as pb_utils


def call(model, inputs, *outputs):
    tensors = [pb_utils.Tensor(name, value) for name, value in inputs.items()]
    answer = pb_utils.InferenceRequest(model_name=model, requested_output_names=outputs, inputs=tensors).exec()
    if answer.has_error():
        raise pb_utils.TritonModelException(answer.error().message())
    return [pb_utils.get_output_tensor_by_name(answer, name).as_numpy() for name in outputs]


def decode(request, llm):
    inputs = (pb_utils.get_input_tensor_by_name(request, name) for name in ("text_input", "max_tokens"))
    text, length = (each.as_numpy() for each in inputs)
    ids, length = call("preprocessing", {"QUERY": text, "REQUEST_OUTPUT_LEN": length}, "INPUT_ID", "OUTPUT_LEN")
    [tokens] = call(llm, {"input_ids": ids, "request_output_len": length}, "output_ids")
    [text] = call("postprocessing", {"TOKENS_BATCH": tokens}, "OUTPUT")
    return pb_utils.Tensor("text_output", text)
""",
    },
    requests=dict.fromkeys(
        ("ensemble", "tensorrt_llm_bls"),
        (
            {"text_input": TEXT, "max_tokens": np.array([[3]], dtype=np.int32)},
            lambda answer: answer["text_output"].tolist() == [[b"2 2 2"]],
        ),
    ),
)
LAYOUTS: Final = {"quick-start": QUICK_START, "ensemble": ENSEMBLE, "bls": BLS, "tensorrt-llm": TENSORRT_LLM}
