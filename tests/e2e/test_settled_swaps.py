"""Which model answers around a Swap: after it is Ready, after earlier restarts, and while pods are added."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from conch_contract import names
from tests.e2e.conftest import manifest
from tests.support.clients import infer_http
from tests.support.doubling import build_content
from tests.support.kube import Kube, Object
from tests.support.service import Service
from tests.support.wait import until

LOADS = 8  # seconds that a load takes
INPUT = np.ones(1, np.float32)

pytestmark = pytest.mark.long


def begin(kube: Kube, namespace: str, pods: int, **rollout: Any) -> tuple[Service, str]:
    """Return a service on these pods, and its first revision."""
    body = manifest("double", **build_content(2), minReplicas=pods)
    body["spec"]["rollout"] = {"strategy": "Swap", "progressDeadline": "2m", **rollout}
    kube.apply(body, namespace)
    service = Service(kube, namespace, "double")
    stable = service.until_ready()["stable"]
    until(lambda: len(service.ready_pods()) == pods, "all pods are ready")
    return service, stable


def fetch_factors(pod: Object, seconds: float) -> set[float]:
    """Return the factors by which a pod, at its own address, multiplies for these seconds."""
    address, end, found = f"{pod['status']['podIP']}:{names.HTTP_PORT}", time.monotonic() + seconds, set()
    while time.monotonic() < end:
        found.add(float(infer_http(address, "double", {"x": INPUT})["y"][0]))
        time.sleep(0.1)
    return found


def test_a_change_there_and_back_in_place_is_ready_when_nothing_else_answers(kube: Kube, namespace: str) -> None:
    service, _ = begin(kube, namespace, 1)
    [pod] = service.pods()
    service.patch({"predictor": build_content(3, LOADS=LOADS)})
    until(lambda: service.status.get("candidate"), "it changes")
    time.sleep(LOADS / 2)
    service.patch({"predictor": build_content(2)})
    service.until_ready()
    assert fetch_factors(pod, 2 * LOADS) == {2.0}, "it was Ready, and another revision answered"


def test_pods_that_started_again_under_earlier_revisions_change(kube: Kube, namespace: str) -> None:
    service, stable = begin(kube, namespace, 3, steps=[{"weight": 33}, {"pause": "3s"}])
    for _ in range(2):
        for pod in service.pods():
            service.end_container(pod["metadata"]["name"], names.AGENT_CONTAINER)
            time.sleep(3)
            until(lambda: len(service.ready_pods()) == 3, "it is ready again")
    service.until_ready()
    service.patch({"predictor": build_content(3)})
    until(lambda: service.condition("Stalled") or service.status.get("stable") not in {None, stable}, "it ends")
    assert not service.condition("Stalled")


def test_pods_that_are_added_after_a_change_in_place_take_it_from_none(kube: Kube, namespace: str) -> None:
    service, first = begin(kube, namespace, 1)
    service.patch({"predictor": build_content(3)})
    until(lambda: service.status.get("stable") not in {None, first}, "the first change has taken over")
    service.settle()
    service.patch({"rollout": {"steps": [{"weight": 50}, {"pause": "Manual"}]}, "predictor": build_content(5)})
    until(lambda: (service.status.get("rollout") or {}).get("phase") == "Paused", "the second one serves, and pauses")
    [pod] = service.pods()
    for pods in (2, 3, 4, 5):
        service.patch({"predictor": {"minReplicas": pods}})
        assert fetch_factors(pod, 20) == {5.0}, f"of {pods} pods the first one answered with another model"
