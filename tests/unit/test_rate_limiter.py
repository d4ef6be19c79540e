"""The rate limiter: a field of an instance group sets Triton's flag, and pods without the flag are not swapped."""

from __future__ import annotations

from typing import Any

import pytest

from conch.api import InferenceService
from conch.desire.pod import build_pod_template
from tests.unit.simulation import DEFAULTS, Cluster, build_manifest

LIMITED = {"instanceGroups": [{"rateLimiter": {"resources": [{"name": "slots", "count": 1}]}}]}
OFF: dict[str, Any] = {"instanceGroups": [{"count": 2}]}
MODEL = {"name": "a", "modelFormat": {"name": "onnx"}, "storageUri": "s3://models/a"}
FLAG = "--rate-limit=execution_count"


def list_flags(**predictor: Any) -> list[str]:
    """Return the flags of the rate limiter in the command of Triton."""
    body = build_manifest(**predictor)
    if "models" in predictor:
        body["spec"]["predictor"].pop("model")
    [triton] = build_pod_template(InferenceService.parse(body), "magika-1", DEFAULTS)["spec"]["containers"]
    return [word for word in " ".join(triton["command"]).split() if "rate-limit" in word]


@pytest.mark.parametrize("limiter", [{}, {"priority": 2}])
def test_a_rate_limiter_of_any_model_sets_the_flag(limiter: dict[str, Any]) -> None:
    groups = {"instanceGroups": [{}, {"rateLimiter": limiter}]}
    assert list_flags(triton=groups) == [FLAG]
    assert list_flags(models=[MODEL, {**MODEL, "name": "b", "triton": groups}], entry="a") == [FLAG]
    assert list_flags(triton=OFF) == []
    assert list_flags(models=[MODEL], entry="a") == []


def test_flags_of_the_user_stand_beside_it() -> None:
    units = "--rate-limit-resource=slots:2"
    assert list_flags(triton={**LIMITED, "args": [units]}) == [FLAG, units]
    assert list_flags(triton={"args": [FLAG]}) == [FLAG], "for a rate_limiter in config.pbtxt"


@pytest.mark.parametrize(("before", "after"), [(OFF, LIMITED), (LIMITED, OFF), (LIMITED, LIMITED)])
def test_a_change_of_the_flag_takes_pods_of_its_own(before: dict[str, Any], after: dict[str, Any]) -> None:
    cluster = Cluster(build_manifest(minReplicas=2, triton=before, rollout={"strategy": "Swap"}))
    cluster.reports_on_request = True
    cluster.reconcile()
    cluster.start_pods(cluster.decision().wanted)
    cluster.settle()
    cluster.edit(uri="s3://models/other", triton=after)
    cluster.settle()
    assert cluster.status.rollout is not None
    obstacle = cluster.status.rollout.swap_obstacle
    assert ("rateLimiter of instance groups" in obstacle) == (before != after)
    assert cluster.status.rollout.strategy == ("Swap" if before == after else "Progressive")
