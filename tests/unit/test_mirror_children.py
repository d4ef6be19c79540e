"""The pod of a service whose files are at several places, and the status of one that serves without its store."""

from __future__ import annotations

import json
from typing import Any

import pytest

from conch.api import InferenceService
from conch.api.variants import merge
from conch.decide import build_report_requests
from conch.desire.defaults import PodDefaults
from conch.desire.pod import build_pod_template
from conch.desire.revision import build_model_manifest
from conch_contract import AgentReport, ModelReport, ModelState, ModelWarning
from conch_contract.report import SERVED_FROM_CACHE
from tests.unit.simulation import Cluster, build_manifest

DEFAULTS = PodDefaults(image="image", pull_policy="IfNotPresent")
MIRRORS = [
    {"uri": "s3://copies/magika", "secretRef": {"name": "copies"}},
    {"uri": "pvc://models/magika"},
    {"uri": "hf://owner/magika", "secretRef": {"name": "store"}},
]


def _service(**storage: Any) -> InferenceService:
    manifest = build_manifest("s3://models/magika")
    manifest["spec"]["predictor"]["model"]["storage"] = storage
    return InferenceService.parse(manifest)


def _read_mounts(service: InferenceService) -> dict[str, dict[str, Any]]:
    """Return the volume at each path of the agent's container."""
    spec = build_pod_template(service, "magika-1", DEFAULTS)["spec"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    return {mount["mountPath"]: volumes[mount["name"]] for mount in spec["initContainers"][0]["volumeMounts"]}


def test_each_secret_of_a_place_has_a_folder_and_each_claim_is_mounted() -> None:
    mounts = _read_mounts(_service(secretRef={"name": "store"}, mirrors=MIRRORS))
    for secret in ("store", "copies"):
        assert mounts[f"/conch/storage-secrets/{secret}"]["secret"]["secretName"] == secret
    assert mounts["/conch/pvc/models"]["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}
    assert "/conch/storage" not in mounts


@pytest.mark.parametrize("uri", ["pvc:///magika", "pvc://a:b/magika", "pvc://Models/magika", "pvc://a\x07/magika"])
def test_a_mirror_of_no_claim_has_no_volume(uri: str) -> None:
    """The API server would refuse the pods of the service, whose store serves."""
    mounts = _read_mounts(_service(mirrors=[{"uri": uri}, {"uri": "pvc://models/magika"}]))
    assert [path for path in mounts if path.startswith("/conch/pvc")] == ["/conch/pvc/models"]


def test_the_secret_of_storage_uri_is_not_that_of_a_mirror_without_one() -> None:
    service = _service(secretRef={"name": "store"}, mirrors=[{"uri": "s3://public/magika"}])
    [source] = build_model_manifest(service).models
    assert source.secret == "store"
    assert [(place.storage_uri, place.secret) for place in source.places] == [
        ("s3://models/magika", "store"),
        ("s3://public/magika", ""),
    ]
    assert "/conch/storage" not in _read_mounts(service), "where the agent reads a Secret without a name"


def test_the_mirrors_of_a_revision_are_in_its_manifest() -> None:
    manifest = json.loads(build_model_manifest(_service(mirrors=MIRRORS)).to_json())
    assert manifest["models"][0]["mirrors"] == [
        {"uri": "s3://copies/magika", "secret": "copies"},
        {"uri": "pvc://models/magika"},
        {"uri": "hf://owner/magika", "secret": "store"},
    ]


def test_a_variant_of_other_files_has_no_mirrors_of_the_predictors() -> None:
    predictor = {"model": {"storageUri": "s3://models/m", "storage": {"mirrors": MIRRORS}}}
    assert "storage" not in merge(predictor, {"model": {"storageUri": "s3://models/int8"}})["model"]
    same = merge(predictor, {"model": {"modelFormat": {"name": "triton"}}})["model"]
    assert same["storage"]["mirrors"] == MIRRORS


def test_a_pod_that_serves_without_its_store_is_in_the_status_until_that_answers() -> None:
    cluster = Cluster(build_manifest())
    cluster.reconcile()
    name = cluster.decision().wanted
    warning = ModelWarning(reason=SERVED_FROM_CACHE, message="The files are from the cache.")
    model = ModelReport(name="magika", state=ModelState.READY, digest=f"sha256:{'0' * 64}", warnings=(warning,))
    cluster.put_pod(name, 0, ready=True, report=AgentReport(ready=True, models=(model,)))
    cluster.settle()
    [revision] = cluster.status.revisions
    assert [each.reason for each in revision.models[0].warnings] == [SERVED_FROM_CACHE]
    assert [event.reason for event in cluster.story].count(SERVED_FROM_CACHE) == 1
    cluster.now += 3600
    assert build_report_requests(cluster.snapshot()), "no event shows that the store answers"
    healed = model.model_copy(update={"warnings": ()})
    cluster.put_pod(name, 0, ready=True, report=AgentReport(ready=True, models=(healed,)))
    cluster.settle()
    [revision] = cluster.status.revisions
    assert revision.models[0].warnings == ()
    assert not build_report_requests(cluster.snapshot())
