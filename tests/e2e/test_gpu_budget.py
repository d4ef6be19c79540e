"""The revision that serves has all GPUs, and a change comes: nothing deadlocks, and no pod that serves is removed.

The GPUs are pretended: a node's status has some, so that the real scheduler counts them; Triton runs on its CPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner

from conch.cli.main import cli
from conch_contract import names
from tests.e2e.conftest import manifest
from tests.support import clients
from tests.support.doubling import LIGHT, NUMBERS, build_predictor, build_request
from tests.support.gpus import GPU, Pretended
from tests.support.kube import Kube
from tests.support.place import Place
from tests.support.service import Service
from tests.support.traffic import Traffic
from tests.support.wait import until

ON_A_GPU = {"resources": {"limits": {GPU: 1}}}

pytestmark = pytest.mark.xdist_group(
    "nodes"
)  # all stories here pretend GPUs on the same node, which no story may drain


def test_a_change_waits_for_a_gpu_and_goes_by_itself_when_there_is_one(
    place: Place, serve: Callable[..., Service], gpus: Pretended, figure: Callable[[str], None]
) -> None:
    service = serve("double", **build_predictor(2), **ON_A_GPU)
    stable = service.until_ready()["stable"]
    with (
        place.reach(service.namespace, service.name, names.HTTP_PORT, names.GRPC_PORT) as [http, grpc],
        Traffic(http, grpc, build_request(2, 3), LIGHT) as traffic,
    ):
        planned = _plan(place, service, **build_predictor(3), **ON_A_GPU)
        service.patch({"predictor": build_predictor(3)})
        ready = service.until_condition("Ready", "False", "InsufficientGPU")
        new = service.status["candidate"]
        assert ready["message"] == (
            f"Revision {new} needs 1 more pod with 1 {GPU}; 0 fit: 1 of 1 {GPU} on eligible nodes are allocated."
            " To go on: free 1, lower replicas, or set rollout.onInsufficientCapacity to Recreate or Swap."
        )
        assert f"GPUs:\n  {ready['message']}\n\nThe operator would write nothing." in planned
        assert service.condition("Serving")["status"] == "True"
        assert service.condition("Reconciling")["status"] == "True"
        assert not service.condition("Stalled")
        assert service.status["rollout"]["admission"] == "Pending"
        assert not service.pods(new)
        assert len(service.ready_pods(stable)) == 1
        service.until_event("InsufficientGPU", "free 1")
        gpus.are(2)
        assert service.settle()["stable"] == new
        until(lambda: _answer(grpc) == (3 * NUMBERS).tolist(), "the new revision answers a new channel")
    figure(str(traffic))
    assert not traffic.tallies["grpc"].failures, traffic
    assert not traffic.tallies["fresh"].failures, traffic


def _plan(place: Place, service: Service, **predictor: Any) -> str:
    """Return the output of `kubectl conch plan` for a change before it is applied."""
    assert place.local is not None
    words = ["plan", "--filename=-", "--against=cluster", f"--namespace={service.namespace}"]
    text = json.dumps(manifest(service.name, **predictor))
    done = CliRunner().invoke(cli, [*words, f"--kubeconfig={place.local.kubeconfig}"], input=text)
    assert done.exit_code == 0, done.output
    return done.output


def _answer(grpc: str) -> list[float]:
    found: list[float] = clients.infer_grpc(grpc, "double", {"x": NUMBERS})["y"].tolist()
    return found


def test_with_recreate_the_old_pod_gives_its_gpu_to_the_new_one(serve: Callable[..., Service], gpus: Pretended) -> None:
    del gpus  # there is one
    service = serve("double", **build_predictor(2), **ON_A_GPU)
    stable = service.until_ready()["stable"]
    service.patch({"predictor": build_predictor(3), "rollout": {"onInsufficientCapacity": "Recreate"}})
    new = service.settle()["stable"]
    assert new != stable
    assert [pod["spec"]["containers"][0]["resources"]["limits"][GPU] for pod in service.ready_pods(new)] == ["1"]
    service.until_event("InsufficientGPU", "these end first")
    service.until_event("Promoted", stable)


def test_a_quota_of_the_namespace_counts_too(kube: Kube, serve: Callable[..., Service], gpus: Pretended) -> None:
    gpus.are(4)
    service = serve("double", **build_predictor(2), **ON_A_GPU)
    service.until_ready()
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "gpus"},
        "spec": {"hard": {f"requests.{GPU}": "1"}},
    }
    kube.apply(quota, service.namespace)
    path = f"/api/v1/namespaces/{service.namespace}/resourcequotas/gpus"
    until(lambda: "used" in ((kube.read(path) or {}).get("status") or {}), "the quota has been counted")
    service.patch({"predictor": build_predictor(3)})
    held = service.until_condition("Ready", "False", "InsufficientGPU")
    assert (
        f"0 fit: 1 of 1 requests.{GPU} of ResourceQuota gpus are used. To go on: free 1 or raise the quota"
        in held["message"]
    )
    quota["spec"] = {"hard": {f"requests.{GPU}": "2"}}
    kube.apply(quota, service.namespace)
    service.settle()
