"""A model repository: ensembles and models that call others, loaded in the order of their calls, as one set."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from conch.api.analysis import Gate
from conch.decide.gates import evaluate
from conch.observe.measured import History, Measured, Totals
from conch.signals.accumulator import CounterAccumulator
from conch.triton.metrics import read_metrics
from conch_contract import ModelReport, ModelSource, ModelState, TritonConfig, Warmup, WarmupRequest, names
from conch_contract.manifest import select_model
from conch_contract.revision_jobs import PARITY
from tests.serving.job_run import JobRun
from tests.serving.onnx_files import multiply
from tests.serving.pod import Pod
from tests.serving.processes import until
from tests.serving.store import Store
from tests.serving.test_config import CALLER, ECHO
from tests.support.examples import build_file_type
from tests.support.pipeline import ADDER, PIPELINE, PYTHON, ensemble

X = [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2.0]}]
FAILING = b"raise RuntimeError('the weights are not here')\n"


def put(store: Store, pod: Pod, folder: str, files: dict[str, bytes], entry: str, **fields: object) -> ModelSource:
    """Upload a repository; return its source."""
    store.put("models", {f"{folder}/{name}": content for name, content in files.items()})
    pod.write_secret(store.secret)
    uri = f"s3://models/{folder}"
    return ModelSource.model_validate({"name": entry, "format": "repository", "storageUri": uri, **fields})


def pin(source: ModelSource, *reports: ModelReport) -> list[ModelSource]:
    """Return the models of the manifest that the operator writes after a pod was ready."""
    wire = source.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return [
        ModelSource.model_validate({**select_model(wire, report.name), "digest": report.digest}) for report in reports
    ]


def test_an_ensemble_answers_and_restarts_nothing_when_its_contents_are_recorded(store: Store, pod: Pod) -> None:
    source = put(store, pod, "pipeline", PIPELINE, "pipeline", warmup=Warmup().model_dump())
    pod.write_manifest(source)
    pod.start()
    pod.until_ready()
    assert pod.infer("pipeline", X) == {"y": [6, 7]}
    reports = [pod.until_reported(name) for name in ("pipeline", "pre", "double", "post")]
    assert all(report.digest.startswith("sha256:") for report in reports)
    assert len({report.digest for report in reports}) == 3, "pre and post have the same files"
    assert [bool(report.warmup) for report in reports] == [True, False, False, False], "the entry is warmed"
    assert {each.name for each in pod.report.models} == {report.name for report in reports}
    loads = pod.statistics("double")
    pod.write_manifest(*pin(source, *reports))
    until(lambda: all(not model.reason for model in pod.report.models), "all is as it was", pod.agent)
    store.put("models", {"pipeline/late/1/model.onnx": multiply(3), "pipeline/double/1/model.onnx": multiply(3)})
    pod.agent.kill() if pod.agent else None
    pod.start_agent()
    pod.until_ready()
    assert pod.infer("pipeline", X) == {"y": [6, 7]}, "the revision serves the set that it began with"
    assert {each.name for each in pod.report.models} == {report.name for report in reports}, "no late folder"
    assert pod.statistics("double")["inference_count"] > loads["inference_count"], "it was never loaded again"


def test_a_set_that_has_served_is_remembered_when_the_store_is_gone(store: Store, pod: Pod) -> None:
    pod.write_manifest(put(store, pod, "remembered", PIPELINE, "pipeline"))
    pod.start()
    pod.until_ready()
    until((pod.root / "models" / "expansion.json").exists, "the set is remembered", pod.agent)
    assert pod.agent is not None
    pod.agent.kill()
    pod.write_secret({**store.secret, "AWS_SECRET_ACCESS_KEY": "wrong"})
    pod.start_agent()
    pod.until_ready()
    assert pod.infer("pipeline", X) == {"y": [6, 7]}


def test_a_folder_that_was_missing_is_found_when_it_is_there(store: Store, pod: Pod) -> None:
    files = {name: content for name, content in PIPELINE.items() if not name.startswith("post/")}
    pod.write_manifest(put(store, pod, "late", files, "pipeline"))
    pod.start()
    pod.until_reason("ModelMissing", "pipeline")
    put(store, pod, "late", PIPELINE, "pipeline")
    pod.until_ready()
    assert pod.infer("pipeline", X) == {"y": [6, 7]}


def test_the_first_pod_serves_the_models_of_one_upload(store: Store, pod: Pod) -> None:
    """An upload that does not load is followed by another one, of which other models have changed, too."""
    pod.write_manifest(put(store, pod, "twice", {**PIPELINE, "post/1/model.py": FAILING}, "pipeline"))
    pod.start()
    pod.until_reason("LoadFailed", "post")
    pod.until_reported("double")
    put(store, pod, "twice", {**PIPELINE, "double/1/model.onnx": multiply(10)}, "pipeline")
    pod.until_ready()
    assert pod.infer("pipeline", X) == {"y": [26, 31]}


def test_a_step_that_names_its_ensemble_in_a_request_is_no_cycle(store: Store, pod: Pod) -> None:
    """Triton loads it without the ensemble; the call is made by a request, or never."""
    calls = ADDER + b"\n\ndef never():\n    pb_utils.InferenceRequest(model_name='pipeline')\n"
    pod.write_manifest(put(store, pod, "back", {**PIPELINE, "pre/1/model.py": calls}, "pipeline"))
    pod.start()
    pod.until_ready()
    assert pod.infer("pipeline", X) == {"y": [6, 7]}


def test_later_pods_refuse_a_part_that_has_changed(store: Store, pod: Pod) -> None:
    source = put(store, pod, "changed", PIPELINE, "pipeline")
    pod.write_manifest(source)
    pod.start()
    pod.until_ready()
    reports = [pod.until_reported(name) for name in ("pipeline", "pre", "double", "post")]
    pod.stop()
    later = Pod(pod.root.with_name("later"))
    try:
        store.put("models", {"changed/post/1/model.py": ECHO})
        later.write_secret(store.secret)
        later.write_manifest(*pin(source, *reports))
        later.start()
        message = later.until_reason("ContentChanged", "post").message
        assert message.startswith("s3://models/changed/post has changed")
        assert not later.ready
        assert later.until_reported("double").digest == reports[2].digest
        assert "'post'" in later.until_reason("WaitsForModels", "pipeline").message
    finally:
        later.stop()


def test_a_model_that_calls_others_waits_for_them(store: Store, pod: Pod) -> None:
    flat = PYTHON.replace(b"[-1, 2]", b"[-1]")
    files = {"caller/1/model.py": CALLER, "scaler/config.pbtxt": flat, "scaler/1/model.py": ADDER}
    warmup = Warmup().model_dump()
    pod.write_manifest(put(store, pod, "bls", files, "caller", warmup=warmup))
    pod.start()
    pod.until_ready()
    assert pod.infer("caller", [{**X[0], "shape": [2]}]) == {"y": [2.5, 3]}
    report = pod.until_reported("caller")
    assert not report.warnings
    assert report.warmup is not None
    assert report.warmup.reason == "WarmedUp"


def test_models_that_call_one_another_are_served(store: Store, pod: Pod) -> None:
    other = CALLER.replace(b'"scaler"', b'"caller"')
    files = {"caller/1/model.py": CALLER, "scaler/1/model.py": other}
    pod.write_manifest(put(store, pod, "mutual", files, "caller"))
    pod.start()
    pod.until_ready()
    assert not pod.until_reported("caller").warnings
    assert not pod.until_reported("scaler").warnings


@dataclass(frozen=True)
class Wrong:
    """A repository, and what the agent reports of it."""

    files: dict[str, bytes]
    reason: str
    parts: tuple[str, ...]
    entry: str = "a"
    model: str = "a"  # of which it is reported


WRONG = {
    "cycle": Wrong(
        {"a/config.pbtxt": ensemble("b"), "b/config.pbtxt": ensemble("c"), "c/config.pbtxt": ensemble("a")},
        "ModelCycle",
        ("Ensemble 'a' calls itself: a → b → c → a.",),
    ),
    "missing": Wrong(
        {"a/config.pbtxt": ensemble("pre", "post"), "post/1/model.onnx": multiply(2)},
        "ModelMissing",
        ("calls 'pre', which this InferenceService does not serve; beside 'a' it serves post.", "correct the name"),
    ),
    "entry": Wrong(
        {"b/1/model.onnx": multiply(2), "c/1/model.onnx": multiply(2)},
        "EntryMissing",
        ("has no model 'a', which predictor.entry names. It has b and c.", "Set predictor.entry"),
    ),
    "below": Wrong(
        {"zoo/a/1/model.onnx": multiply(2)},
        "NotAModel",
        ("its models are in a folder below it (zoo/a)", "such as s3://models/wrong-below/zoo."),
    ),
    "one": Wrong(
        {"model.onnx": multiply(2)}, "NotAModel", ("holds model.onnx, and no folder of a model", "its own format")
    ),
    "failing": Wrong(
        {"a/config.pbtxt": ensemble("b"), "b/config.pbtxt": PYTHON, "b/1/model.py": FAILING},
        "LoadFailed",
        ("the weights are not here",),
        model="b",
    ),
    "config": Wrong(
        {"a/config.pbtxt": b"nonsense: 1", "b/1/model.onnx": multiply(2)},
        "InvalidConfig",
        ("line:column",),
        entry="b",
    ),
    "name": Wrong(
        {"a b/config.pbtxt": b"", "b/1/model.onnx": multiply(2)},
        "UnsafePath",
        ("The model name 'a b' cannot be a folder",),
        entry="b",
        model="a b",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named_and_cured_without_a_restart(case: str, store: Store, pod: Pod) -> None:
    wrong = WRONG[case]
    pod.write_manifest(put(store, pod, f"wrong-{case}", wrong.files, wrong.entry))
    pod.start()
    report = pod.until_reason(wrong.reason, wrong.model)
    for part in wrong.parts:
        assert part in report.message
    assert report.state == ModelState.FAILED
    assert not pod.ready
    pod.write_manifest(put(store, pod, f"mended-{case}", PIPELINE, "pipeline"))
    pod.until_ready()
    assert pod.infer("pipeline", X) == {"y": [6, 7]}


def test_one_failing_model_does_not_stop_the_others(store: Store, pod: Pod) -> None:
    files = {**PIPELINE, "broken/config.pbtxt": PYTHON, "broken/1/model.py": FAILING}
    pod.write_manifest(put(store, pod, "one-fails", files, "pipeline"))
    pod.start()
    pod.until_reason("LoadFailed", "broken")
    pod.until_reported("pipeline")
    assert pod.infer("pipeline", X) == {"y": [6, 7]}
    assert not pod.ready


def test_fields_of_one_model_are_refused(store: Store, pod: Pod) -> None:
    source = put(store, pod, "fields", PIPELINE, "pipeline")
    pod.write_manifest(source.model_copy(update={"config": TritonConfig(max_batch_size=4)}))
    pod.start()
    assert "write them into config.pbtxt of the model" in pod.until_reason("ConfigConflict", "pipeline").message


def test_the_models_come_back_after_a_crash_of_triton(store: Store, pod: Pod) -> None:
    pod.write_manifest(put(store, pod, "crash", PIPELINE, "pipeline"))
    pod.start()
    pod.until_ready()
    assert pod.triton is not None
    pod.triton.kill()
    until(lambda: not pod.ready, "the pod is not ready", pod.agent)
    pod.start_triton()
    pod.until_ready()
    assert pod.infer("pipeline", X) == {"y": [6, 7]}


def test_each_of_many_models_is_loaded_once(store: Store, pod: Pod) -> None:
    files = {"double/1/model.onnx": multiply(2)}
    files |= {f"m{number:02}/config.pbtxt": ensemble("double") for number in range(60)}
    pod.write_manifest(put(store, pod, "many", files, "m00"))
    pod.start()
    pod.until_ready()
    assert pod.triton is not None
    log = pod.triton.log.read_text()
    loads = {name: log.count(f"loading: {name}:1") for name in (path.partition("/")[0] for path in files)}
    assert loads == dict.fromkeys(loads, 1)


def test_a_latency_gate_names_the_slowest_step(store: Store, pod: Pod) -> None:
    slow = ADDER.replace(b"return [", b"__import__('time').sleep(0.2)\n        return [")
    pod.write_manifest(put(store, pod, "slow-step", {**PIPELINE, "post/1/model.py": slow}, "pipeline"))
    pod.start()
    pod.until_ready()
    accumulator = CounterAccumulator()

    def read_totals(moment: float) -> Totals:
        accumulator.add("uid", read_metrics(pod.read_metrics(), "pipeline"))
        return accumulator.totals(moment)

    history = History().with_totals(read_totals(100.0))
    for _ in range(3):
        pod.infer("pipeline", X)
    # Triton counts a request a moment after its answer.
    until(lambda: read_totals(101.0).requests == 3, "Triton has counted the requests", pod.agent)
    history = history.with_totals(read_totals(102.0))
    gate = Gate.model_validate({"latency": {"max": "100ms"}, "minSamples": 3})
    status = evaluate(gate, Measured(history), None, 103.0).status
    assert status.verdict == "Failed", status
    assert "exceeds the maximum of 100ms; of the other models in its pods, 'post' takes longest, 2" in status.message


def test_the_example_names_the_type_of_a_file(store: Store, pod: Pod) -> None:
    files = {name: each.read_bytes() if isinstance(each, Path) else each for name, each in build_file_type().items()}
    pod.write_manifest(put(store, pod, "file-type", files, "file-type"))
    pod.start()
    pod.until_ready()
    script = [{"name": "file", "datatype": "BYTES", "shape": [1], "data": ["#!/bin/sh\nset -eu\necho one\n"]}]
    assert pod.infer("file-type", script)["type"] == ["shell"]


@pytest.fixture(scope="module")
def stable(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """A pod of the stable revision: the pipeline."""
    pod = Pod(tmp_path_factory.mktemp("stable") / "conch")
    try:
        pod.write_manifest(put(store, pod, "stable", PIPELINE, "pipeline"))
        pod.start()
        pod.until_ready()
        yield pod
    finally:
        pod.stop()


@pytest.mark.parametrize(
    ("changed", "step"),
    [
        ({"post/1/model.py": ADDER.replace(b"x + 1", b"x + 2")}, "post"),
        ({"pre/1/model.py": ADDER.replace(b"x + 1", b"x + 2")}, "pre"),
        ({"double/1/model.onnx": multiply(3)}, "double"),
        ({"post/1/model.py": ADDER.replace(b"x + 1", b"x / 'no'")}, "post"),
        ({"pipeline/config.pbtxt": ensemble("post", "double")}, ""),
    ],
    ids=["after", "before", "model", "fails", "other steps"],
)
def test_parity_names_the_step_that_answers_differently(
    changed: dict[str, bytes], step: str, store: Store, stable: Pod, pod: Pod
) -> None:
    pod.write_manifest(put(store, pod, f"candidate-{step or 'other'}", PIPELINE | changed, "pipeline"))
    pod.start()
    pod.until_ready()
    warmup = Warmup(timeout_seconds=30, requests=(WarmupRequest(body={"inputs": X}),))
    uri = f"s3://models/candidate-{step or 'other'}"
    source = ModelSource(name="pipeline", format="repository", storage_uri=uri, warmup=warmup)
    options = (f"--stable=127.0.0.1:{stable.http}", f"--candidate=127.0.0.1:{pod.http}")
    report = JobRun(PARITY, pod.root.parent, source, *options).report
    assert (report.reason, report.compared, report.agreed) == ("Compared", 1, 0), report
    assert report.worst is not None
    assert report.worst.step == step


def test_models_from_several_places_are_served_together(store: Store, pod: Pod) -> None:
    """Each with the credentials of its own bucket; one has none that fit."""
    uri = put(store, pod, "several", PIPELINE, "pipeline").storage_uri
    fields = {
        "pipeline": {"format": "triton", "secret": "right"},
        "pre": {"format": "triton", "secret": "right"},
        "double": {"format": "onnx", "secret": "right"},
        "post": {"format": "triton", "secret": "wrong"},
    }
    models = [
        ModelSource.model_validate({"name": name, "storageUri": f"{uri}/{name}", **each})
        for name, each in fields.items()
    ]
    pod.write_secret(store.secret, "right")
    pod.write_secret({**store.secret, "AWS_SECRET_ACCESS_KEY": "wrong"}, "wrong")
    pod.write_manifest(*models)
    pod.start()
    assert pod.until_reason("AccessDenied", "post").state == ModelState.FAILED
    assert "'post'" in pod.until_reason("WaitsForModels", "pipeline").message
    pod.write_secret(store.secret, "wrong")
    pod.until_ready()
    assert pod.infer("pipeline", X) == {"y": [6, 7]}


@pytest.mark.parametrize("manifest", [None, "{"], ids=["missing", "cut off"])
def test_an_agent_that_starts_without_its_manifest_leaves_what_serves(
    manifest: str | None, store: Store, pod: Pod
) -> None:
    pod.write_manifest(put(store, pod, f"kept-{manifest is None}", PIPELINE, "pipeline"))
    pod.start()
    pod.until_ready()
    assert pod.agent is not None
    pod.agent.kill()
    file = pod.root / "manifest" / names.MANIFEST_FILE
    text = file.read_text()
    file.write_text(manifest) if manifest else file.unlink()
    pod.start_agent()
    until(lambda: pod.report.reason in {"ManifestMissing", "InvalidManifest"}, "it is reported", pod.agent)
    time.sleep(2)  # several turns of the agent's loop
    assert pod.infer("pipeline", X) == {"y": [6, 7]}
    file.write_text(text)
    pod.until_ready()
    assert {folder.name for folder in pod.repository.iterdir()} == {"pipeline", "pre", "double", "post"}


def test_a_model_that_is_not_required_does_not_hold_its_pod(store: Store, pod: Pod) -> None:
    """It is tried again, and serves when its files are right; a model that calls it does not wait for it."""
    store.put("models", {"extra/model.onnx": b"not yet"})
    pod.write_secret(store.secret)
    extra = ModelSource(name="extra", format="onnx", storage_uri="s3://models/extra", required=False)
    calls = ADDER + b"\n\ndef never():\n    pb_utils.InferenceRequest(model_name='extra')\n"
    store.put("models", {"main/config.pbtxt": PYTHON, "main/1/model.py": calls})
    pod.write_manifest(ModelSource(name="main", format="triton", storage_uri="s3://models/main"), extra)
    pod.start()
    pod.until_ready()
    assert pod.infer("main", X) == {"y": [2.5, 3.0]}
    report = pod.until_reason("LoadFailed", "extra")
    assert report.state == ModelState.FAILED
    [warning] = report.warnings
    assert warning.reason == "ModelNotServed"
    assert warning.message.startswith("Model extra, which is not required, is not served: ")
    assert not pod.model("main").warnings
    store.put("models", {"extra/model.onnx": multiply(2)})
    pod.until_reported("extra")
    assert pod.ready
    assert not pod.model("extra").warnings
    assert pod.infer("extra", X) == {"y": [3, 4]}
