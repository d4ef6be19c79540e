"""storage.verify from the spec to the manifest of the pods, and back into the status."""

from __future__ import annotations

from typing import Any

import pytest

from conch.api import InferenceService
from conch.api.variants import merge
from conch.decide.naming import revision_name
from conch.desire.pod import build_pod_template
from conch.desire.revision import build_model_manifest
from conch_contract import AgentReport, ModelReport, ModelState, Signature, Verification
from tests.unit.simulation import DEFAULTS, Cluster, build_manifest

DIGEST = f"sha256:{'a' * 64}"
STORAGE = {"secretRef": {"name": "s3"}, "verify": {"digest": DIGEST}}


def _service(predictor: dict[str, Any]) -> InferenceService:
    spec = {"predictor": predictor}
    return InferenceService.parse({"metadata": {"name": "m", "namespace": "n", "uid": "u"}, "spec": spec})


def _model(**fields: object) -> dict[str, Any]:
    return {"modelFormat": {"name": "onnx"}, "storageUri": "s3://models/m", **fields}


def test_the_manifest_has_the_checks_of_each_model() -> None:
    one = build_model_manifest(_service({"model": _model(storage=STORAGE)}))
    assert [source.verify for source in one.models] == [Verification(digest=DIGEST)]
    models = [_model(name="a", storage=STORAGE), _model(name="b")]
    several = build_model_manifest(_service({"models": models, "entry": "a"}))
    assert [source.verify for source in several.models] == [Verification(digest=DIGEST), None]


def test_pods_mount_the_keys_that_models_need_beside_what_else_they_mount() -> None:
    signed = {"verify": {"signature": {"configMapRef": {"name": "team"}, "path": "a/team.sig"}}}
    models = [_model(name="a", storage=signed), _model(name="b", storage=signed), _model(name="c", storage=STORAGE)]
    service = _service({"models": models, "entry": "a"})
    wanted = Verification(signature=Signature(config_map="team", path="a/team.sig"))
    assert [source.verify for source in build_model_manifest(service).models] == [
        wanted,
        wanted,
        Verification(digest=DIGEST),
    ]
    pod = build_pod_template(service, "m-1", DEFAULTS)["spec"]
    [agent], [triton] = pod["initContainers"], pod["containers"]
    mount = {"name": "conch-trust", "mountPath": "/conch/trust/team", "readOnly": True}
    assert [each for each in agent["volumeMounts"] if "trust" in each["name"]] == [mount]
    assert mount not in triton["volumeMounts"]
    volume = {"name": "conch-trust", "configMap": {"name": "team", "optional": True}}
    assert [each for each in pod["volumes"] if "trust" in each["name"]] == [volume]


def test_checks_are_part_of_the_revision() -> None:
    """So a rollback returns to them, and other content under the same storageUri is a rollout."""
    names = {
        revision_name("m", _service({"model": _model(storage=storage)}).spec.predictor)
        for storage in ({}, {"verify": {"digest": DIGEST}}, {"verify": {"digest": DIGEST.replace("a", "b")}})
    }
    assert len(names) == 3


@pytest.mark.parametrize(
    ("changes", "storage"),
    [
        ({"modelFormat": {"name": "triton"}}, STORAGE),
        ({"storageUri": "s3://models/m"}, STORAGE),
        ({"storageUri": "s3://models/int8"}, {"secretRef": {"name": "s3"}}),
        ({"storageUri": "https://host/m.onnx"}, None),
        ({"storageUri": "hf://owner/m", "storage": {}}, {}),
        ({"storageUri": "s3://models/int8", "storage": {"verify": {"digest": DIGEST}}}, {"verify": {"digest": DIGEST}}),
    ],
)
def test_a_variant_of_other_files_has_no_digest_of_the_predictors(changes: dict[str, Any], storage: Any) -> None:
    model = _model(storage=STORAGE)
    assert merge({"model": model}, {"model": changes})["model"].get("storage") == storage
    models = merge({"models": [{"name": "a", **model}]}, {"models": [{"name": "a", **changes}]})["models"]
    assert models[0].get("storage") == storage


@pytest.mark.parametrize(("reported", "shown"), [(("Digest",), 1), (("x" * 3000,) * 1000, 3)])
def test_the_status_has_the_checks_that_files_have_passed(reported: tuple[str, ...], shown: int) -> None:
    cluster = Cluster(build_manifest())
    cluster.reconcile()
    model = ModelReport(name="magika", state=ModelState.READY, digest=DIGEST, verified=reported, signer="CN=Team")
    cluster.put_pod(cluster.decision().wanted, 0, ready=True, report=AgentReport(ready=True, models=(model,)))
    cluster.settle()
    [revision] = cluster.status.revisions
    assert revision.models[0].verified == reported[:shown]
    assert revision.models[0].signer == "CN=Team"


def test_the_status_has_the_checks_that_the_files_of_all_pods_have_passed() -> None:
    """A pod of an older serving image knows no checks."""
    cluster = Cluster(build_manifest())
    cluster.reconcile()
    for number, verified in enumerate([("Digest", "Signature"), ("Digest",)]):
        model = ModelReport(
            name="magika", state=ModelState.READY, digest=DIGEST, verified=verified, signer="CN=Team" * (number == 0)
        )
        report = AgentReport(ready=True, models=(model,))
        cluster.put_pod(cluster.decision().wanted, number, ready=True, report=report)
    cluster.settle()
    [revision] = cluster.status.revisions
    assert revision.models[0].verified == ("Digest",)
    assert revision.models[0].signer == ""
