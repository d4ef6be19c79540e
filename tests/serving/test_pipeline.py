"""A pipeline: its ensemble is rendered from the configurations of its steps, once Triton serves them."""

from __future__ import annotations

import hashlib
from urllib.error import HTTPError

import pytest

from conch_agent.record import compute_digest
from conch_contract import ModelSource, ModelState, PipelineStep, Warmup
from tests.serving.onnx_files import multiply
from tests.serving.pod import Pod
from tests.serving.processes import until
from tests.serving.store import Store
from tests.support.pipeline import PIPELINE, PYTHON

X = [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2.0]}]
# Each step reads `x` and returns `y`.
STEPS = (
    PipelineStep(model="pre"),
    PipelineStep(model="double", inputs={"x": "pre.y"}),
    PipelineStep(model="post", inputs={"x": "y"}, outputs={"y": "result"}),
)


def put(store: Store, pod: Pod, folder: str, files: dict[str, bytes]) -> list[ModelSource]:
    """Upload the steps; return their sources."""
    store.put("models", {f"{folder}/{name}": content for name, content in files.items()})
    pod.write_secret(store.secret)
    return [
        ModelSource(name=name, format="triton", storage_uri=f"s3://models/{folder}/{name}")
        for name in ("pre", "double", "post")
    ]


def pipeline(*steps: PipelineStep) -> ModelSource:
    return ModelSource(name="all", format="triton", storage_uri="pipeline:all", warmup=Warmup(), steps=steps)


def test_a_pipeline_answers_and_outlives_its_agent_and_triton(store: Store, pod: Pod) -> None:
    optional = b'input [{ name: "bias" data_type: TYPE_FP32 dims: [2] optional: true }]'
    files = {**PIPELINE, "post/config.pbtxt": PYTHON + optional}
    sources = [*put(store, pod, "chained", files), pipeline(*STEPS)]
    pod.write_manifest(*sources)
    pod.start()
    pod.until_ready()
    assert pod.infer("all", X) == {"result": [6, 7]}
    report = pod.until_reported("all")
    assert report.warmup
    origins = {each.field: each.origin for each in report.config}
    assert origins == {"platform": "Conch", "version_policy": "Triton"}
    digests = {each.name: pod.model(each.name).digest for each in sources} | {"all": "sha256:of-another-version"}
    pod.write_manifest(*(each.model_copy(update={"digest": digests[each.name]}) for each in sources))
    assert pod.agent
    assert pod.triton
    pod.agent.kill()
    pod.triton.kill()
    pod.start()
    pod.until_ready()
    assert pod.infer("all", X) == {"result": [6, 7]}
    assert pod.until_reported("all").digest == report.digest


def test_a_step_that_fails_is_named_by_its_own_reason(store: Store, pod: Pod) -> None:
    files = {**PIPELINE, "double/1/model.onnx": b"not yet"}
    pod.write_manifest(*put(store, pod, "failing", files), pipeline(*STEPS))
    pod.start()
    pod.until_reason("LoadFailed", "double")
    assert "'double'" in pod.until_reason("WaitsForModels", "all").message
    until(lambda: pod.model("pre").state == ModelState.READY, "the others serve", pod.agent)
    store.put("models", {"failing/double/1/model.onnx": multiply(2)})
    pod.until_ready()
    assert pod.infer("all", X) == {"result": [6, 7]}


@pytest.mark.parametrize(
    ("steps", "files", "words"),
    [
        ((STEPS[0], PipelineStep(model="double"), STEPS[2]), {}, "no later step reads what step 'pre' returns ('y')"),
        (
            STEPS,
            {"post/config.pbtxt": PYTHON.replace(b"TYPE_FP32", b"TYPE_INT64")},
            "step 'post' reads 'x' as INT64 [-1, 2], and step 'double' returns 'y' as FP32 [-1, 2]",
        ),
        (
            (STEPS[0], PipelineStep(model="double", inputs={"pixels": "y"}), STEPS[2]),
            {},
            "step 'double' maps the input 'pixels', and the inputs of its model are 'x'. Correct the name.",
        ),
    ],
    ids=["a step of no use", "another type", "an unknown input"],
)
def test_steps_that_do_not_fit_are_refused_and_can_be_called(
    store: Store, pod: Pod, steps: tuple[PipelineStep, ...], files: dict[str, bytes], words: str
) -> None:
    pod.write_manifest(*put(store, pod, "unfit", {**PIPELINE, **files}), pipeline(*steps))
    pod.start()
    message = pod.until_reason("InvalidPipeline", "all").message
    assert words in message
    assert pod.model("pre").state == ModelState.READY
    assert pod.infer("pre", X) == {"y": [2.5, 3.0]}
    assert not pod.ready


def build_batching(*sizes: int) -> dict[str, bytes]:
    """Return the files of three steps with a max_batch_size each; 0: a step does not batch."""
    files, numbers = dict(PIPELINE), dict(zip(("pre", "double", "post"), sizes, strict=True))
    for name in ("pre", "post"):
        batching = PYTHON.replace(b"[-1, 2]", b"[2]") + b"max_batch_size: %d" % numbers[name]
        files[f"{name}/config.pbtxt"] = batching if numbers[name] else PYTHON
    tensors = (
        b'input [{ name: "x" data_type: TYPE_FP32 dims: [2] }] output [{ name: "y" data_type: TYPE_FP32 dims: [2] }]'
    )
    files["double/config.pbtxt"] = tensors + b" max_batch_size: %d" % numbers["double"]
    return files


@pytest.mark.parametrize("batches", [(4, 8, 8), (0, 8, 0)], ids=["all batch", "one batches"])
def test_a_pipeline_batches_if_all_of_its_steps_do(store: Store, pod: Pod, batches: tuple[int, ...]) -> None:
    pod.write_manifest(*put(store, pod, f"batched-{batches[0]}", build_batching(*batches)), pipeline(*STEPS))
    pod.start()
    pod.until_ready()
    two = [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1.5, 2.0, 0.0, 1.0]}]
    assert pod.infer("all", two) == {"result": [6, 7, 3, 5]}
    assert pod.triton_config("all")["max_batch_size"] == min(batches)


def read_batch_size(pod: Pod) -> int:
    """Return the largest batch of the pipeline; 0 while Triton does not serve it."""
    try:
        return int(pod.triton_config("all")["max_batch_size"])
    except HTTPError:
        return 0


def test_a_pipeline_is_rendered_again_for_steps_that_have_changed(store: Store, pod: Pod) -> None:
    """The pod fetched other files than the revision has, which are back in the store."""
    right, other = build_batching(8, 4, 8), build_batching(8, 8, 8)
    sources = put(store, pod, "changed-step", other)
    pod.write_manifest(*sources, pipeline(*STEPS))
    pod.start()
    pod.until_ready()
    assert pod.triton_config("all")["max_batch_size"] == 8
    put(store, pod, "changed-step", right)
    files = {name: hashlib.sha256(right[f"double/{name}"]).hexdigest() for name in ("1/model.onnx", "config.pbtxt")}
    pinned = sources[1].model_copy(update={"digest": compute_digest(files)})
    pod.write_manifest(sources[0], pinned, sources[2], pipeline(*STEPS))
    until(lambda: pod.model("double").digest == pinned.digest, "the files of the revision are there", pod.agent)
    until(lambda: read_batch_size(pod) == 4, "the ensemble fits the step", pod.agent)
    pod.until_ready()
    assert pod.infer("all", X) == {"result": [6, 7]}
