"""A service that the operator has not read yet: what it looks like to clients that wait for it."""

from __future__ import annotations

from pathlib import Path

from conch.api.kinds import INFERENCE_SERVICE
from tests.api.operator import Operator, are_ready, isvc
from tests.cluster import Cluster
from tests.support.kube import Kube
from tests.support.wait import until


def test_a_service_that_no_operator_has_read_is_not_current(
    cluster: Cluster, kube: Kube, namespace: str, log: Path
) -> None:
    """kstatus: an observedGeneration other than metadata.generation means InProgress; an absent one means Current."""
    kube.apply(isvc(), namespace)
    [listed] = kube.list(INFERENCE_SERVICE, namespace)
    assert listed["status"] == {"observedGeneration": -1}
    assert kube.get(INFERENCE_SERVICE, namespace, "magika") == listed
    kube.apply(isvc(uri="s3://models/two"), namespace)
    assert kube.list(INFERENCE_SERVICE, namespace)[0]["status"] == {"observedGeneration": -1}
    # Whatever a client sends as a status of a new service is dropped.
    kube.apply({**isvc("other"), "status": {"observedGeneration": 1, "stable": "mine"}}, namespace)
    other = kube.get(INFERENCE_SERVICE, namespace, "other") or {}
    assert other["status"] == {"observedGeneration": -1}
    with Operator(cluster, log):
        until(are_ready(kube, namespace, 2), "both are Ready at their generation")
