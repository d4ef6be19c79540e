"""The pod of a service with a cache."""

from __future__ import annotations

from typing import Any

import pytest

from conch.api import InferenceService
from conch.desire.defaults import PodDefaults
from conch.desire.pod import build_pod_template
from tests.unit.simulation import build_manifest

DEFAULTS = PodDefaults(image="image", pull_policy="IfNotPresent")


def build_pod(uri: str, claim: str) -> dict[str, Any]:
    manifest = build_manifest(uri)
    manifest["spec"]["predictor"]["cache"] = {"claimName": claim}
    return dict(build_pod_template(InferenceService.parse(manifest), "m-1", DEFAULTS)["spec"])


def list_claims(pod: dict[str, Any]) -> list[str]:
    volumes = pod["volumes"]
    return [each["persistentVolumeClaim"]["claimName"] for each in volumes if "persistentVolumeClaim" in each]


@pytest.mark.parametrize(("claim", "claims"), [("shared", ["shared"]), ("cache", ["shared", "cache"])])
def test_a_claim_that_is_source_and_cache_is_one_volume(claim: str, claims: list[str]) -> None:
    """The kubelet waits for ever for the second volume of a claim."""
    pod = build_pod("pvc://shared/m", claim)
    assert list_claims(pod) == claims
    mounts = {mount["mountPath"]: mount for mount in pod["initContainers"][0]["volumeMounts"]}
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in mounts.values()} <= volumes
    assert mounts["/conch/pvc/shared"]["readOnly"]
    assert "readOnly" not in mounts["/conch/cache"]


def test_the_kubelet_does_not_visit_all_files_of_a_cache_at_each_start() -> None:
    assert build_pod("s3://models/m", "cache")["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
