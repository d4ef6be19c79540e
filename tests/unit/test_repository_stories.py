"""Stories of a service of several models: its variants, and its status where there are many."""

import asyncio
import json
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from conch.api import ConditionType, InferenceService
from conch.api.kinds import CONFIG_MAP, CONTROLLER_REVISION, DEPLOYMENT, INFERENCE_SERVICE, JOB, Ref
from conch.cli.status import build_status_text
from conch.decide import build_report_requests
from conch.observe import Revision
from conch_agent.expansion import Expansion, Part, find_folders, list_models
from conch_agent.reasons import Failure, Reason
from conch_agent.settings import Settings
from conch_agent.sources import open_source
from conch_contract import (
    AgentReport,
    ModelManifest,
    ModelReport,
    ModelSource,
    ModelState,
    ModelWarning,
    WarmupReport,
    names,
)
from conch_contract.revision_jobs import PARITY, WARMUP
from tests.unit.simulation import KEY, Cluster, build_manifest, end_job

REPOSITORY = {"modelFormat": {"name": "repository"}, "storageUri": "s3://models/repo"}


def build_report(models: int, *failing: int) -> AgentReport:
    """What an agent reports of so many models, of which some fail and the last one has a warning."""
    reports = []
    for number in range(models):
        state = ModelState.FAILED if number in failing else ModelState.READY
        warnings = (ModelWarning(reason="ModelRenamed", message="of another name"),) if number == models - 1 else ()
        digest = f"sha256:{number}"
        reports.append(ModelReport(name=f"m{number:03}", state=state, digest=digest, warnings=warnings))
    return AgentReport(ready=not failing, models=tuple(reports))


def read_service(cluster: Cluster) -> InferenceService:
    return InferenceService.parse(cluster.objects[Ref(INFERENCE_SERVICE, KEY.name)])


def read_source(cluster: Cluster, revision: str) -> ModelSource:
    manifest = json.loads(cluster.objects[Ref(CONTROLLER_REVISION, revision)]["data"]["manifest"])
    return ModelSource.model_validate(manifest["models"][0])


@pytest.mark.parametrize(
    ("main", "changes", "expected"),
    [
        (
            {"model": REPOSITORY, "entry": "all"},
            {"storageUri": "s3://models/b"},
            ("repository", "s3://models/b", "all"),
        ),
        ({"model": REPOSITORY, "entry": "all"}, {"modelFormat": {"name": "onnx"}}, ("onnx", "s3://models/repo", "all")),
        (
            {"model": {"name": "m", "modelFormat": {"name": "onnx"}, "storageUri": "s3://models/m"}},
            REPOSITORY,
            ("repository", "s3://models/repo", "m"),
        ),
    ],
    ids=["another repository", "one model", "a repository in place of one model"],
)
def test_clients_request_a_variant_under_the_same_name(
    main: dict[str, Any], changes: dict[str, Any], expected: tuple[str, ...]
) -> None:
    body = build_manifest(**main)
    body["spec"]["variants"] = [{"name": "b", "predictor": {"model": changes}}]
    cluster = Cluster(body)
    cluster.settle()
    source = read_source(cluster, cluster.decision("b").wanted)
    assert (source.format, source.storage_uri, source.name) == expected
    service = InferenceService.parse(body)
    assert service.of_variant("b").model_name == service.model_name


MODELS = [
    {"name": "pre", "modelFormat": {"name": "python"}, "storageUri": "pvc://code/pre"},
    {
        "name": "net",
        "modelFormat": {"name": "onnx"},
        "storageUri": "s3://models/net",
        "storage": {"secretRef": {"name": "weights"}},
        "triton": {"maxBatchSize": 4},
    },
    {
        "name": "all",
        "modelFormat": {"name": "triton"},
        "storageUri": "s3://other/all",
        "storage": {"secretRef": {"name": "config"}},
    },
]


def build_models(variants: list[dict[str, Any]] | None = None) -> Cluster:
    """A service of three models from two buckets and a claim, whose entry is `all`."""
    body = build_manifest(models=MODELS, entry="all", warmup={})
    del body["spec"]["predictor"]["model"]
    if variants:
        body["spec"]["variants"] = variants
    cluster = Cluster(body)
    cluster.settle()
    return cluster


def read_models(cluster: Cluster, revision: str) -> list[dict[str, Any]]:
    """The models in the manifest of a revision's pods."""
    manifest = json.loads(cluster.objects[Ref(CONFIG_MAP, revision)]["data"][names.MANIFEST_FILE])
    found: list[dict[str, Any]] = manifest["models"]
    return found


def test_each_of_several_models_has_its_own_storage_and_configuration() -> None:
    cluster = build_models()
    name = cluster.decision().wanted
    pre, net, entry = (ModelSource.model_validate(model) for model in read_models(cluster, name))
    assert (pre.secret, net.secret, entry.secret) == ("", "weights", "config")
    assert (pre.config.max_batch_size, net.config.max_batch_size) == (None, 4)
    assert [bool(each.warmup) for each in (pre, net, entry)] == [False, False, True]
    template = cluster.objects[Ref(DEPLOYMENT, name)]["spec"]["template"]
    [agent] = template["spec"]["initContainers"]
    mounts = {mount["mountPath"]: mount["name"] for mount in agent["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
    for secret in ("weights", "config"):
        volume = volumes[mounts[f"{names.STORAGE_SECRETS_DIR}/{secret}"]]
        assert volume["secret"] == {"secretName": secret, "optional": True}
    assert volumes[mounts[f"{names.PVC_DIR}/code"]]["persistentVolumeClaim"]["claimName"] == "code"
    assert template["metadata"]["annotations"]["conch.dev/model"] == "all"
    models = tuple(
        ModelReport(name=model["name"], state=ModelState.READY, digest=f"sha256:{model['name']}") for model in MODELS
    )
    cluster.put_pod(name, 0, ready=True, report=AgentReport(ready=True, models=models))
    cluster.settle()
    assert [model["digest"] for model in read_models(cluster, name)] == ["sha256:pre", "sha256:net", "sha256:all"]


def test_a_variant_changes_one_model_of_several() -> None:
    change = {"name": "net", "storageUri": "s3://models/net-int8", "triton": {"maxBatchSize": 8}}
    cluster = build_models([{"name": "int8", "predictor": {"models": [change]}}])
    found = {model["name"]: model for model in read_models(cluster, cluster.decision("int8").wanted)}
    assert found["net"]["storageUri"] == "s3://models/net-int8"
    assert found["net"]["config"] == {"maxBatchSize": 8}
    assert (found["net"]["secret"], found["net"]["format"]) == ("weights", "onnx"), "the rest is that of the predictor"
    stable = {model["name"]: model for model in read_models(cluster, cluster.decision().wanted)}
    assert all(found[name] == stable[name] for name in ("pre", "all"))


def test_the_status_of_many_models_has_those_that_a_user_has_to_see() -> None:
    cluster = Cluster(build_manifest(model=REPOSITORY, entry="m000"))
    cluster.reconcile()
    name = cluster.decision().wanted
    cluster.put_pod(name, 0, ready=False, report=build_report(500, 77, 400))
    cluster.settle()
    [revision] = cluster.status.revisions
    assert len(revision.models) == 32
    assert [model.name for model in revision.models[:3]] == ["m000", "m077", "m400"]
    assert revision.model_counts is not None
    assert (revision.model_counts.ready, revision.model_counts.total) == (498, 500)
    assert len(json.dumps(cluster.status.to_wire())) < 20_000
    cluster.reports.clear()  # the operator has started again, and has not polled the pods
    cluster.settle()
    assert cluster.status.revisions[0].model_counts == revision.model_counts
    assert "498/500 models ready" in str(build_status_text(read_service(cluster), cluster.now))


def test_the_models_that_are_recorded_are_all_of_them_not_those_of_the_status() -> None:
    cluster = Cluster(build_manifest(model=REPOSITORY, entry="m000"))
    cluster.reconcile()
    name = cluster.decision().wanted
    cluster.put_pod(name, 0, ready=True, report=build_report(40))
    cluster.settle()
    annotation = Ref(CONTROLLER_REVISION, name)
    assert len(json.loads(cluster.objects[annotation]["metadata"]["annotations"]["conch.dev/contents"])) == 40
    del cluster.objects[annotation]["metadata"]["annotations"]["conch.dev/contents"]
    cluster.put(cluster.objects[annotation])
    cluster.reports.clear()
    cluster.settle()
    assert "conch.dev/contents" not in cluster.objects[annotation]["metadata"]["annotations"], "no part of a set"


def test_folders_beside_the_models_are_no_models() -> None:
    source = ModelSource(name="a", format="repository", storage_uri="s3://models/repo")
    files = [
        "a/config.pbtxt",
        "a/1/model.py",
        "b/1/model.onnx",
        "docs/a.md",
        "scripts/1/x.py",
        "zoo/c/config.pbtxt",
        "x",
    ]
    assert find_folders(map(PurePosixPath, files), source) == ("a", "b")
    with pytest.raises(Failure) as raised:
        find_folders([PurePosixPath("docs/a.md")], source)
    assert raised.value.reason == Reason.NOT_A_MODEL


async def test_a_folder_has_the_same_identity_alone_and_in_its_repository(tmp_path: Path) -> None:
    repository = tmp_path / "conch" / "repo"
    for name in ("a/config.pbtxt", "a/1/model.py", "b/1/model.onnx", "data/train.csv"):
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(name * (1000 if name == "data/train.csv" else 1))
    settings = Settings(root=tmp_path, max_bytes=1000)
    source = ModelSource(name="a", format="repository", storage_uri=f"file://{repository}")
    parts = await list_models(source, settings)
    assert [part.source.name for part in parts] == ["a", "b"], "what is left out has any size"
    for part in parts:
        listing = await open_source(part.source.storage_uri, settings).list_files()
        assert listing.identity == part.identity


def test_the_phase_is_that_of_the_least_advanced_model() -> None:
    cluster = Cluster(build_manifest(model=REPOSITORY, entry="all"))
    cluster.reconcile()
    states = {"all": ModelState.LOADING, "pre": ModelState.READY, "post": ModelState.FETCHING}
    models = tuple(ModelReport(name=name, state=state) for name, state in states.items())
    cluster.put_pod(cluster.decision().wanted, 0, ready=False, report=AgentReport(models=models))
    cluster.settle()
    assert cluster.status.revisions[0].phase == "Fetching"


def test_object_versions_that_do_not_fit_are_left_out_of_both_objects() -> None:
    cluster = Cluster(build_manifest(model=REPOSITORY, entry="m0"))
    cluster.reconcile()
    name = cluster.decision().wanted
    versions = {f"1/{number:04}-{'x' * 20}": "v" * 32 for number in range(400)}
    models = tuple(
        ModelReport(name=f"m{number}", state=ModelState.READY, digest="sha256:1", object_versions=versions)
        for number in range(9)
    )
    cluster.put_pod(name, 0, ready=True, report=AgentReport(ready=True, models=models))
    cluster.settle()
    assert cluster.settle() == 0, "it comes to rest"
    assert not any("objectVersions" in model for model in read_models(cluster, name))


def test_a_revision_of_the_version_before_keeps_its_content() -> None:
    cluster = Cluster(build_manifest())
    cluster.reconcile()
    name = cluster.decision().wanted
    record = cluster.objects[Ref(CONTROLLER_REVISION, name)]
    old = {"digest": "sha256:old", "object-versions": '{"model.onnx":"3sL4"}', "warmup-digest": "sha256:w"}
    record["metadata"]["annotations"] |= {f"conch.dev/{key}": value for key, value in old.items()}
    cluster.put(record)
    cluster.settle()
    [model] = read_models(cluster, name)
    pins = {"digest": "sha256:old", "objectVersions": {"model.onnx": "3sL4"}, "warmupDigest": "sha256:w"}
    assert {key: model[key] for key in pins} == pins


def test_parity_sends_requests_to_the_entry_of_each_revision() -> None:
    rollout: dict[str, Any] = {"analysis": [{"parity": {}}]}
    cluster = Cluster(build_manifest(model=REPOSITORY, entry="all", warmup={}, rollout=rollout))
    cluster.settle()
    cluster.start_pods(cluster.decision().wanted)
    cluster.settle()
    cluster.edit(uri="s3://models/repo-2", entry="whole")
    cluster.settle()
    candidate = cluster.decision().wanted
    cluster.start_pods(candidate)
    cluster.settle()
    end_job(cluster, WARMUP, candidate, WarmupReport(reason="WarmedUp", stable=True))
    cluster.settle()
    [container] = cluster.objects[Ref(JOB, PARITY.format_name(candidate))]["spec"]["template"]["spec"]["containers"]
    assert "--stable-model=all" in container["command"]


async def wait_for_other_parts(expansion: Expansion, before: tuple[Part, ...] | None) -> tuple[Part, ...]:
    """Wait until the expansion has other models; return them."""
    for _ in range(1000):
        if expansion.parts is not None and expansion.parts != before:
            return expansion.parts
        await asyncio.sleep(0.01)
    raise AssertionError("the models do not change")


async def test_the_models_that_have_served_stay_whatever_is_listed_meanwhile(tmp_path: Path) -> None:
    repository = tmp_path / "conch" / "repo"
    (repository / "a").mkdir(parents=True)
    (repository / "a" / "config.pbtxt").write_text("")
    (tmp_path / "models" / "repository").mkdir(parents=True)
    settings = Settings(root=tmp_path)
    source = ModelSource(name="a", format="repository", storage_uri=f"file://{repository}")
    expansion = Expansion(ModelManifest(models=(source,)), settings)
    task = asyncio.create_task(expansion.run())
    served = await wait_for_other_parts(expansion, None)
    (repository / "b").mkdir()
    (repository / "b" / "config.pbtxt").write_text("")
    await wait_for_other_parts(expansion, served)
    await expansion.settle(served)
    again = Expansion(ModelManifest(models=(source,)), settings)
    await asyncio.wait_for(asyncio.gather(task, again.run()), 10)
    for each in (expansion, again):
        assert each.is_settled
        assert [part.source.name for part in each.parts or ()] == ["a"]


def test_a_foreign_record_has_no_contents() -> None:
    cluster = Cluster(build_manifest())
    cluster.settle()
    body = cluster.objects[Ref(CONTROLLER_REVISION, cluster.decision().wanted)]
    names_of_no_model: list[Any] = [[], {}, None, 1]
    for name in names_of_no_model:
        strange = {**body, "data": {**body["data"], "manifest": json.dumps({"models": [{"name": name}]})}}
        revision = Revision.parse(strange)
        assert revision is not None
        assert revision.contents == {}


def build_optional() -> Cluster:
    """A service of two models, of which one is not required."""
    models = [MODELS[0], {**MODELS[1], "required": False}]
    body = build_manifest(models=models, entry="pre")
    del body["spec"]["predictor"]["model"]
    cluster = Cluster(body)
    cluster.settle()
    return cluster


def report_optional(*, is_served: bool) -> AgentReport:
    """What an agent reports of them: the one that is not required serves, or has failed."""
    warning = ModelWarning(reason="ModelNotServed", message="Model net, which is not required, is not served: no file.")
    failed = {"state": ModelState.FAILED, "reason": "NotFound", "message": "no file.", "warnings": (warning,)}
    served = {"state": ModelState.READY, "digest": "sha256:net"}
    net = ModelReport.model_validate({"name": "net", **(served if is_served else failed)})
    return AgentReport(ready=True, models=(ModelReport(name="pre", state=ModelState.READY, digest="sha256:pre"), net))


def test_a_model_that_is_not_required_and_fails_is_reported_and_holds_nothing() -> None:
    cluster = build_optional()
    name = cluster.decision().wanted
    cluster.put_pod(name, 0, ready=False, report=report_optional(is_served=False))
    cluster.settle()
    assert cluster.status.revisions[0].phase == "Ready", "that of its other models"
    cluster.put_pod(name, 0, ready=True, report=report_optional(is_served=False))
    cluster.settle()
    ready = cluster.status.condition(ConditionType.READY)
    assert ready is not None
    assert (ready.status, ready.reason) == ("True", "Served")
    assert "Some requests fail: Model net, which is not required, is not served: no file." in ready.message
    cluster.now += 3600
    requests = build_report_requests(cluster.snapshot())
    assert [each.period for each in requests] == [60], "no event shows that it serves"
    assert cluster.decision().wait is None
    assert [model.get("digest") for model in read_models(cluster, name)] == ["sha256:pre", None]
    cluster.put_pod(name, 0, ready=True, report=report_optional(is_served=True))
    cluster.settle()
    assert [model.get("digest") for model in read_models(cluster, name)] == ["sha256:pre", "sha256:net"]
    ready = cluster.status.condition(ConditionType.READY)
    assert ready is not None
    assert "Some requests fail" not in ready.message
