"""An object that is nested without end is not stored: every client that read it would have to be prepared for it.

Python's parsers give up at a depth of 1,000, and one such object would end each watch of its kind.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conch.api.kinds import DEPLOYMENT, INFERENCE_SERVICE, SERVICE
from tests.api.operator import Operator, another_namespace, are_ready, isvc
from tests.api.server import service
from tests.cluster import Cluster
from tests.support.attacks import DEEP, create_deep, get_refusal
from tests.support.kube import Kube
from tests.support.wait import until

PLACES: dict[str, dict[str, Any]] = {
    "an object of no field": {"unheardOf": DEEP},
    "affinity": {"pod": {"affinity": {"nodeAffinity": DEEP}}},
    "a toleration": {"pod": {"tolerations": [{"key": DEEP}]}},
    "a volume": {"pod": {"volumes": [{"name": "a", "csi": {"volumeAttributes": DEEP}}]}},
    "a claim": {"pod": {"volumes": [{"name": "a", "ephemeral": {"volumeClaimTemplate": {"metadata": DEEP}}}]}},
    "a tensor": {"warmup": {"requests": [{"inputs": [{"name": "a", "datatype": "BOOL", "shape": [1], "data": DEEP}]}]}},
    "an expected tensor": {
        "warmup": {
            "requests": [
                {
                    "inputs": [{"name": "a", "datatype": "BOOL", "shape": [1], "data": [True]}],
                    "expected": [{"name": "b", "data": DEEP}],
                }
            ]
        }
    },
    "a parameter": {
        "warmup": {
            "requests": [
                {
                    "inputs": [{"name": "a", "datatype": "BOOL", "shape": [1], "data": [True]}],
                    "parameters": {"a": DEEP},
                }
            ]
        }
    },
    "a trigger": {"maxReplicas": 2, "autoscaling": {"triggers": [{"type": "cron", "metadata": {"a": DEEP}}]}},
    "a metric": {
        "maxReplicas": 2,
        "autoscaling": {"metrics": [{"type": "External", "external": {"metric": {"selector": DEEP}}}]},
    },
}


@pytest.mark.parametrize("brackets", ["{}", "[]"], ids=["objects", "lists"])
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_an_object_that_is_nested_without_end_is_not_stored(
    kube: Kube, namespace: str, place: dict[str, Any], brackets: str
) -> None:
    opening, closing = ('{"a":', "}") if brackets == "{}" else ("[", "]")
    body = json.dumps(service({"spec": {"predictor": place}}))
    body = body.replace(json.dumps(DEEP), f"{opening * 2000}1{closing * 2000}")
    if refusal := get_refusal(kube, namespace, body):
        assert "Invalid value" in refusal or "Too many" in refusal, refusal[:1000]
        return
    stored = kube.get(INFERENCE_SERVICE, namespace, "magika")
    assert stored is not None
    assert depth(stored) < 60


def test_objects_with_deep_managed_fields_end_no_operator(
    cluster: Cluster, kube: Kube, namespace: str, log: Path
) -> None:
    """No schema holds them: the API server stores what comes, 10,000 levels deep."""
    with another_namespace(kube, f"{namespace}-of-another") as place:
        for kind in (INFERENCE_SERVICE, DEPLOYMENT, SERVICE):
            create_deep(kube, kind, place, f"before-{kind.plural}")
        with Operator(cluster, log) as operator:
            kube.apply(isvc(), namespace)
            until(are_ready(kube, namespace), "the service is Ready", seen=operator.log)
            for kind in (INFERENCE_SERVICE, DEPLOYMENT, SERVICE):
                create_deep(kube, kind, place, f"after-{kind.plural}")
            kube.apply(isvc("next"), namespace)
            until(are_ready(kube, namespace, 2), "the next one is Ready too", seen=operator.log)
            assert "Traceback" not in operator.log()


def depth(value: Any) -> int:
    """How deep a value is nested."""
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0
