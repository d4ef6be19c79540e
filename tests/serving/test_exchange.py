"""The exchange of a set of models for another one: parts of two sets never answer one request."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from urllib.error import HTTPError

import numpy as np
import pytest

from conch_contract import ModelSource, ModelState, PipelineStep
from tests.serving.pod import Pod
from tests.serving.processes import until
from tests.serving.store import Store
from tests.support.pipeline import PYTHON, build_set, compute_answer
from tests.support.traffic import Mix, RepeatedRequest, Traffic

X = np.array([[1.5, 2.0]], dtype=np.float32)
INPUT = [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2.0]}]
FAILING = b"raise RuntimeError('the weights are not here')\n"


def answer_of(number: int) -> list[float]:
    """Return the answer of a set to X."""
    answer: list[float] = compute_answer(number, X)[0].tolist()
    return answer


def put(store: Store, pod: Pod, folder: str, files: dict[str, bytes]) -> ModelSource:
    store.put("models", {f"exchange/{folder}/{name}": content for name, content in files.items()})
    pod.write_secret(store.secret)
    return ModelSource(name="pipeline", format="repository", storage_uri=f"s3://models/exchange/{folder}")


def write_sets(pod: Pod, *sets: list[ModelSource]) -> None:
    """Write the manifests of the revisions m-1, m-2, ... of which the first is assigned to the pod."""
    for number, sources in enumerate(sets, start=1):
        pod.write_manifest_of(f"m-{number}", *sources, is_default=number == 1)
        pod.write_manifest_of(f"m-{number}", *sources)
    pod.assign("m-1")


def try_answer(pod: Pod) -> list[float] | None:
    """Return the answer of the entry; None while Triton does not serve it."""
    try:
        [answer] = pod.infer("pipeline", INPUT).values()
    except HTTPError:
        return None
    return answer


def until_served(pod: Pod, revision: str, answer: list[float]) -> None:
    def is_served() -> bool:
        return pod.report.revision == revision and pod.ready

    until(is_served, f"{revision} is served", pod.agent)
    assert try_answer(pod) == answer


def reads(pod: Pod, text: str) -> bool:
    return text in (pod.root / "agent.log").read_text()


def build_request(number: int) -> RepeatedRequest:
    return RepeatedRequest("pipeline", "x", X, "y", lambda answer: answer.ravel().tolist() == answer_of(number))


def test_parts_of_two_sets_never_answer_one_request(store: Store, pod: Pod) -> None:
    write_sets(pod, [put(store, pod, "one", build_set(1))], [put(store, pod, "two", build_set(2))])
    pod.start()
    until_served(pod, "m-1", answer_of(1))
    with Traffic(f"127.0.0.1:{pod.http}", f"127.0.0.1:{pod.grpc}", build_request(1), Mix(0, 0, kept=2)) as kept:
        pod.assign("m-2")
        until(lambda: not pod.ready, "the pod leaves its Services", pod.agent)
        report = pod.until_reason("WaitsForClients", "double")
        assert "still send requests to double, pipeline, post and pre" in report.message
    assert not kept.failed, kept
    until(partial(reads, pod, "unloads what changes"), "no request came", pod.agent)
    answers = []
    while not pod.ready:
        answers.append(try_answer(pod))
        time.sleep(0.01)
    assert {tuple(each) for each in answers if each} <= {tuple(answer_of(1)), tuple(answer_of(2))}
    until_served(pod, "m-2", answer_of(2))
    pod.assign("m-1")
    until_served(pod, "m-1", answer_of(1))


def test_a_part_that_cannot_be_fetched_leaves_the_old_set_as_it_is(store: Store, pod: Pod) -> None:
    first = [put(store, pod, "whole", build_set(1))]
    parts = put(store, pod, "no-part", build_set(2))
    second = [
        ModelSource(name=name, format="triton", storage_uri=f"{parts.storage_uri}/{folder}")
        for name, folder in (("pipeline", "pipeline"), ("pre", "pre"), ("double", "missing"), ("post", "post"))
    ]
    write_sets(pod, first, second)
    pod.start()
    until_served(pod, "m-1", answer_of(1))
    pod.assign("m-2")
    pod.until_reason("Empty", "double")
    until(lambda: pod.model("pre").state == ModelState.LOADING, "the others are there", pod.agent)
    assert try_answer(pod) == answer_of(1)
    answered = pod.statistics("pre")["inference_count"]
    pod.assign("m-1")
    until_served(pod, "m-1", answer_of(1))
    assert pod.statistics("pre")["inference_count"] == answered + 1, "it was not loaded again"


def test_a_part_that_does_not_load_is_named_and_the_way_back_is_open(store: Store, pod: Pod) -> None:
    failing = {**build_set(2), "post/1/model.py": FAILING}
    write_sets(pod, [put(store, pod, "loads", build_set(1))], [put(store, pod, "fails", failing)])
    pod.start()
    until_served(pod, "m-1", answer_of(1))
    pod.assign("m-2")
    assert "the weights are not here" in pod.until_reason("LoadFailed", "post").message
    assert try_answer(pod) is None
    pod.assign("m-1")
    until_served(pod, "m-1", answer_of(1))


@pytest.mark.parametrize("killed", ["agent", "triton"])
@pytest.mark.parametrize("moment", ["WaitsForClients", "unloads what changes"])
def test_an_exchange_that_is_interrupted_ends(moment: str, killed: str, store: Store, pod: Pod) -> None:
    write_sets(pod, [put(store, pod, "before", build_set(1))], [put(store, pod, "after", build_set(2))])
    pod.start()
    until_served(pod, "m-1", answer_of(1))
    pod.assign("m-2")
    if moment == "WaitsForClients":
        with Traffic(f"127.0.0.1:{pod.http}", f"127.0.0.1:{pod.grpc}", build_request(1), Mix(0, 0, kept=1)):
            pod.until_reason(moment, "double")
    else:
        until(partial(reads, pod, moment), moment, pod.agent)
    process = pod.agent if killed == "agent" else pod.triton
    assert process is not None
    process.kill()
    pod.start_agent() if killed == "agent" else pod.start_triton()
    until_served(pod, "m-2", answer_of(2))


def test_models_come_and_go_and_what_stays_is_not_loaded_again(store: Store, pod: Pod) -> None:
    """The second set has no `post`, and one more model; a model that is not required cannot be fetched any more."""
    uri = put(store, pod, "listed", build_set(1)).storage_uri
    put(store, pod, "listed-extra", build_set(2))
    names = {"pre": "pre", "double": "double", "post": "post"}
    parts = {
        name: ModelSource(name=name, format="triton", storage_uri=f"{uri}/{folder}") for name, folder in names.items()
    }
    extra = ModelSource(name="extra", format="triton", storage_uri=f"{uri}-extra/pre")
    optional = ModelSource(name="optional", format="triton", storage_uri=f"{uri}/pre", required=False)
    gone = optional.model_copy(update={"storage_uri": f"{uri}/missing"})

    def chain(*steps: str) -> ModelSource:
        mapped = (PipelineStep(model=step, inputs={"x": "y"} if number else {}) for number, step in enumerate(steps))
        return ModelSource(name="pipeline", format="triton", storage_uri="pipeline:pipeline", steps=tuple(mapped))

    first = [*parts.values(), optional, chain("pre", "double", "post")]
    second = [parts["pre"], parts["double"], extra, gone, chain("pre", "double", "extra")]
    write_sets(pod, first, second)
    pod.start()
    until_served(pod, "m-1", answer_of(1))
    loads = {name: pod.statistics(name)["inference_count"] for name in ("pre", "double")}
    pod.assign("m-2")
    until_served(pod, "m-2", [x + 1 for x in answer_of(1)])
    assert {name: pod.statistics(name)["inference_count"] for name in loads} == {"pre": 2, "double": 2}
    for name in ("post", "optional"):
        with pytest.raises(HTTPError):
            pod.infer(name, INPUT)
    assert pod.model("optional").reason == "Empty"


# It calls a model before and after a while, by names that its text does not have.
SLOW_CALLER = b"""
import time

import triton_python_backend_utils as pb_utils


def call(name, x):
    inputs = [pb_utils.Tensor("x", x)]
    request = pb_utils.InferenceRequest(model_name=name, requested_output_names=["y"], inputs=inputs)
    return pb_utils.get_output_tensor_by_name(request.exec(), "y").as_numpy()


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            x = call("pr" + "e", x)
            time.sleep(SECONDS)
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", call("po" + "st", x))]))
        return answers
"""


def test_a_request_that_is_under_way_is_answered_by_the_old_set(store: Store, pod: Pod) -> None:
    sets = []
    for number, seconds in ((1, b"15"), (2, b"0")):
        program = SLOW_CALLER.replace(b"SECONDS", seconds)
        files = {name: content for name, content in build_set(number).items() if not name.startswith("double")}
        caller = {"pipeline/config.pbtxt": PYTHON, "pipeline/1/model.py": program}
        sets.append([put(store, pod, f"slow-{number}", {**files, **caller})])
    write_sets(pod, *sets)
    pod.start()
    until(lambda: pod.report.revision == "m-1" and pod.ready, "m-1 is served", pod.agent)
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(try_answer, pod)
        time.sleep(1)
        pod.assign("m-2")
        assert answer.result() == (X[0] + 2).tolist()
    until_served(pod, "m-2", (X[0] + 4).tolist())
