"""Texts of other controllers: whatever they write into a status, the user reads it in the service's own."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from conch.api.kinds import AUTOSCALER, HTTP_ROUTE, INFERENCE_SERVICE, POD, Kind
from conch.api.text import clean
from conch_contract import names
from tests.api.operator import Operator, are_ready, condition
from tests.api.test_gateways import accept, answer, gateway, gateway_class, routed
from tests.api.test_text import TEXTS
from tests.cluster import Cluster
from tests.support.kube import Kube, Object
from tests.support.wait import until

assert gateway_class  # a fixture
BEGINNING = 20  # characters of a text that must reach the user


def pod_cannot_start(_: Object, text: str) -> Object:
    """A kubelet that cannot pull an image."""
    waits = {"waiting": {"reason": "ErrImagePull", "message": text}}
    container = {"name": "triton", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": waits}
    conditions = [{"type": "Ready", "status": "False"}, {"type": "PodScheduled", "status": "True"}]
    return {"phase": "Pending", "conditions": conditions, "containerStatuses": [container]}


def no_node(_: Object, text: str) -> Object:
    """A scheduler that finds no node."""
    found = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": text}
    return {"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}, found], "containerStatuses": []}


def route_refused(route: Object, text: str) -> Object:
    """A gateway that does not take the route."""
    accepted = {
        "type": "Accepted",
        "status": "False",
        "reason": "Refused",
        "message": text,
        "observedGeneration": route["metadata"]["generation"],
        "lastTransitionTime": "2030-01-01T00:00:00Z",
    }
    parent = {
        "parentRef": route["spec"]["parentRefs"][0],
        "controllerName": "conch.test/example",
        "conditions": [accepted],
    }
    return {"parents": [parent]}


def cannot_scale(_: Object, text: str) -> Object:
    """An autoscaler that has no figures. Kubernetes validates no form of its reason."""
    found = {"type": "ScalingActive", "status": "False", "reason": text, "message": text}
    return {"desiredReplicas": 1, "currentReplicas": 1, "conditions": [found]}


@dataclass(frozen=True)
class Foreign:
    """What another controller writes, and the condition that has it."""

    kind: Kind
    writes: Callable[[Object, str], Object]
    reported: str


FOREIGN = {
    "pod": Foreign(POD, pod_cannot_start, "Ready"),
    "scheduler": Foreign(POD, no_node, "Ready"),
    "gateway": Foreign(HTTP_ROUTE, route_refused, "TrafficProgrammed"),
    "autoscaler": Foreign(AUTOSCALER, cannot_scale, "Autoscaling"),
}


@pytest.mark.parametrize("writer", FOREIGN)
def test_a_text_that_another_controller_writes_reaches_the_user(
    writer: str, cluster: Cluster, kube: Kube, log: Path, gateway_class: Object
) -> None:
    foreign, namespace = FOREIGN[writer], gateway_class["metadata"]["name"]
    kube.apply(gateway_class)
    kube.apply(gateway(namespace), namespace)
    with Operator(cluster, log) as operator:
        for name in TEXTS:
            body = routed(hostnames=[f"{name}.example.com"])
            body["metadata"]["name"] = name
            body["spec"]["predictor"] |= {"maxReplicas": 2}
            kube.apply(body, namespace)
        for name in TEXTS:
            accept(kube, namespace, name)
        until(are_ready(kube, namespace, len(TEXTS)), "the services are Ready")
        for name, text in TEXTS.items():
            beginning = clean(text).strip()[:BEGINNING]

            def write(name: str = name, text: str = text) -> dict[str, str]:
                """Write it again, for the kind's own controller may have written since; return what the user reads."""
                for found in kube.list(foreign.kind, namespace, f"{names.LABEL_SERVICE}={name}"):
                    answer(kube, foreign.kind, namespace, found["metadata"]["name"], foreign.writes(found, text))
                return condition(kube.get(INFERENCE_SERVICE, namespace, name) or {}, foreign.reported)

            def read(beginning: str = beginning, write: Callable[[], dict[str, str]] = write) -> bool:
                found = write()
                return found["status"] != "True" and beginning in found["message"]

            until(read, f"{foreign.reported} of {name} has the text", seen=write)
            status = (kube.get(INFERENCE_SERVICE, namespace, name) or {})["status"]
            messages = "".join(each["message"] for each in status["conditions"])
            assert not [one for one in messages if unicodedata.category(one) in {"Cc", "Cs"} and one not in "\t\n"]
        assert "Traceback" not in operator.log()
        assert "status rejected" not in operator.log()
