"""Several models change in the pods that serve: no request is answered by parts of two sets, and none fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from conch.api.kinds import DEPLOYMENT
from tests.support.doubling import LIGHT, host_of
from tests.support.gateways import Gateway
from tests.support.kube import Kube
from tests.support.pipeline import build_set, compute_answer
from tests.support.service import Service
from tests.support.store import Store
from tests.support.traffic import RepeatedRequest, Traffic
from tests.support.wait import until

PODS = 2
X = np.array([[1.5, 2.0]], dtype=np.float32)


def build_predictor(folder: str) -> dict[str, Any]:
    model = {
        "modelFormat": {"name": "repository"},
        "storageUri": f"s3://models/{folder}",
        "storage": {"secretRef": {"name": "s3"}},
    }
    return {"entry": "pipeline", "model": model, "minReplicas": PODS, "warmup": {"timeout": "1m"}}


def build_request(*numbers: int) -> RepeatedRequest:
    def is_right(answer: np.ndarray[Any, Any]) -> bool:
        return answer.ravel().tolist() in [compute_answer(number, X)[0].tolist() for number in numbers]

    return RepeatedRequest("pipeline", "x", X, "y", is_right)


def uids(service: Service, revision: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in service.ready_pods(revision)}


def test_a_set_of_models_is_exchanged_as_one_and_one_wrong_step_goes_back(
    kube: Kube, namespace: str, gateway: Gateway, bucket: Store, figure: Callable[[str], None]
) -> None:
    wrong = {**build_set(2), "post/1/model.py": build_set(3)["post/1/model.py"]}
    for folder, files in {"first": build_set(1), "second": build_set(2), "wrong": wrong}.items():
        bucket.upload(f"s3://models/sets/{folder}", files)
    body = {
        "apiVersion": "conch.dev/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": "p"},
        "spec": {
            "predictor": build_predictor("sets/first"),
            "rollout": {"strategy": "Swap", "steps": [{"weight": 50}], "progressDeadline": "3m"},
            "traffic": {"gateways": [gateway.parent], "hostnames": [f"{namespace}.example.com"]},
        },
    }
    kube.apply(body, namespace)
    service = Service(kube, namespace, "p")
    first = service.until_ready()["stable"]
    pods = uids(service, first)
    assert len(pods) == PODS
    address, host = gateway.address, host_of(service)
    with Traffic(address, address, build_request(1, 2), LIGHT, host) as both:
        service.patch({"predictor": build_predictor("sets/second")})
        until(lambda: service.status.get("stable") not in {None, first}, "the second set has taken over")
        second = service.settle()["stable"]
        until(lambda: len(service.ready_pods(second)) == PODS, "all pods serve it")
    with Traffic(address, address, build_request(2), LIGHT, host) as right:
        parity = {"parity": {"requests": 3}}
        service.patch({"predictor": build_predictor("sets/wrong"), "rollout": {"analysis": [parity]}})
        failed = service.until_condition("RolloutComplete", "False", "AnalysisFailed")
        assert "the step 'post' is the first that answers the same inputs differently" in failed["message"]
        until(lambda: len(service.ready_pods(second)) == PODS, "all pods are back")
    figure(f"{both}; {right}")
    assert uids(service, second) == pods, "no pod started or ended"
    assert [each["metadata"]["name"] for each in service.children(DEPLOYMENT)] == [first]
    assert not both.failed, both
    assert not right.failed, right
