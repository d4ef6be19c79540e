"""Several models in a pod, each with a warm-up of its own: the pod is ready once all that it needs are warm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conch_contract import ModelManifest, ModelSource, ModelState, Parity, Warmup, WarmupReport, WarmupRequest
from conch_contract.revision_jobs import PARITY, WARMUP
from tests.serving.job_run import JobRun
from tests.serving.pod import Pod
from tests.serving.processes import until
from tests.serving.store import Store
from tests.serving.test_formats import DOUBLE, X

Y = {"name": "y", "data": [3, 4]}
RIGHT = json.dumps({"inputs": X, "expected": [Y]})
WRONG = json.dumps({"inputs": X, "expected": [{**Y, "data": [3, 5]}]})


def build_source(store: Store, name: str, warmup: Warmup | None, **fields: Any) -> ModelSource:
    """Upload a model that doubles, with a right request in its folder warmup; return its source."""
    files = {"model.py": DOUBLE, "factor.py": "FACTOR = 2", "warmup/a.json": RIGHT}
    store.put("models", {f"several/{name}/{path}": text.encode() for path, text in files.items()})
    uri = f"s3://models/several/{name}"
    return ModelSource.model_validate({"name": name, "format": "python", "storageUri": uri, **fields, "warmup": warmup})


def build_warmup(**fields: Any) -> Warmup:
    """Return a warm-up that ends after few requests."""
    return Warmup(round_size=5, within=1.0, **fields)


def start(store: Store, pod: Pod, *sources: ModelSource) -> None:
    """Start a pod that serves the models, of which the first is the entry."""
    pod.write_secret(store.secret)
    pod.write_whole_manifest(ModelManifest(models=sources, entry=sources[0].name))
    pod.start()


def count_requests(pod: Pod, model: str) -> int:
    """Return the number of requests that Triton has answered for a model."""
    return int(pod.statistics(model)["inference_stats"]["success"]["count"])


def get_warmup(pod: Pod, model: str) -> WarmupReport:
    """Return the result of a model's warm-up."""
    report = pod.model(model).warmup
    assert report is not None
    return report


def test_a_pod_is_ready_once_each_of_its_models_is_warm(store: Store, pod: Pod) -> None:
    pod.write_config_map("wake", {"a.json": RIGHT})
    start(
        store,
        pod,
        build_source(store, "entry", build_warmup()),
        build_source(store, "mapped", build_warmup(config_map="wake")),
        build_source(store, "folder", build_warmup(path="warmup")),
        build_source(store, "cold", None),
    )
    pod.until_ready()
    for name in ("entry", "mapped", "folder"):
        report = get_warmup(pod, name)
        assert (report.reason, report.failures) == ("WarmedUp", 0), name
        assert count_requests(pod, name) == report.requests > 0
    assert pod.model("cold").warmup is None
    digests = {model.name: bool(model.warmup_digest) for model in pod.report.models}
    assert digests == {"entry": False, "mapped": True, "folder": False, "cold": False}


def test_a_model_with_a_wrong_answer_is_named_and_holds_the_pod(store: Store, pod: Pod) -> None:
    pod.write_config_map("wake", {"a.json": WRONG})
    start(
        store,
        pod,
        build_source(store, "entry", build_warmup()),
        build_source(store, "other", build_warmup(config_map="wake")),
    )
    report = pod.until_reason("WarmupAnswersWrong", "other")
    assert report.state == ModelState.FAILED
    assert report.message == (
        "Warm-up request ConfigMap wake, key a.json, to version 1 of other, has another answer than expected: output "
        "'y' at index 1: expected 5, got 4.0."
    )
    pod.until_reported("entry")
    assert get_warmup(pod, "entry").reason == "WarmedUp"
    assert not pod.ready
    pod.write_config_map("wake", {"a.json": RIGHT})
    pod.until_ready()


def test_a_config_map_that_is_missing_is_named_at_its_model(store: Store, pod: Pod) -> None:
    start(
        store,
        pod,
        build_source(store, "entry", build_warmup()),
        build_source(store, "other", build_warmup(config_map="later")),
    )
    assert "'later'" in pod.until_reason("WarmupMissing", "other").message
    assert not pod.ready
    pod.write_config_map("later", {"a.json": RIGHT})
    pod.until_ready()


def test_a_model_that_is_not_required_holds_no_pod_by_its_warm_up(store: Store, pod: Pod) -> None:
    """It is warmed again until its answers are right, and then it is a model like any other."""
    pod.write_config_map("wake", {"a.json": WRONG})
    start(
        store,
        pod,
        build_source(store, "entry", build_warmup()),
        build_source(store, "extra", build_warmup(config_map="wake"), required=False),
    )
    pod.until_ready()
    report = pod.until_reason("WarmupAnswersWrong", "extra")
    assert [warning.reason for warning in report.warnings] == ["ModelNotServed"]
    assert "to version 1 of extra, has another answer than expected" in report.warnings[0].message
    assert pod.infer("extra", X) == {"y": [3, 4]}, "Triton keeps it"
    pod.write_config_map("wake", {"a.json": RIGHT})
    assert not pod.until_reported("extra").warnings
    assert pod.ready


def test_another_warm_up_of_a_model_loads_nothing_anew(store: Store, pod: Pod) -> None:
    entry = build_source(store, "entry", build_warmup())
    start(store, pod, entry, build_source(store, "other", None))
    pod.until_ready()
    loads = pod.triton.log.read_text().count("loading: ") if pod.triton else 0
    pod.write_whole_manifest(
        ModelManifest(models=(entry, build_source(store, "other", build_warmup(path="warmup"))), entry="entry")
    )
    until(lambda: pod.model("other").warmup is not None, "the other model is warm", pod.agent)
    pod.until_ready()
    assert count_requests(pod, "other") == get_warmup(pod, "other").requests
    assert pod.triton is not None
    assert pod.triton.log.read_text().count("loading: ") == loads


def test_the_jobs_of_a_revision_call_the_entry(store: Store, pod: Pod, tmp_path: Path) -> None:
    """The other model is before it in the manifest, and its expected answer is wrong."""
    wrong = WarmupRequest(body={"inputs": X}, expected=({**Y, "data": [0, 0]},))
    other = build_source(store, "other", None)
    entry = build_source(store, "entry", None)
    start(store, pod, entry, other)
    pod.until_ready()
    manifest = ModelManifest(
        models=(
            other.model_copy(update={"warmup": build_warmup(requests=(wrong,))}),
            entry.model_copy(update={"warmup": build_warmup()}),
        ),
        entry="entry",
    )
    warmed = JobRun(WARMUP, tmp_path, manifest, "--host=127.0.0.1", f"--port={pod.http}")
    assert (warmed.status, warmed.report.reason) == (0, "WarmedUp"), warmed.report
    sent = count_requests(pod, "entry")
    assert sent == warmed.report.requests
    address = f"127.0.0.1:{pod.http}"
    options = (f"--stable={address}", f"--candidate={address}", f"--parity={Parity(requests=3).to_json()}")
    compared = JobRun(PARITY, tmp_path, manifest, *options)
    assert (compared.status, compared.report.compared, compared.report.agreed) == (0, 3, 3), compared.report
    assert count_requests(pod, "entry") == sent + 6
    assert count_requests(pod, "other") == 0
