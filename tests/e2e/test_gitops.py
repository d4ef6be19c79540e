"""A GitOps controller applies the same manifest every five seconds through a rollout, a bad change and a way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conch.api.kinds import DEPLOYMENT, HTTP_ROUTE
from tests.support.doubling import build_predictor, build_request, environment, wait_for_shares
from tests.support.gateways import Gateway
from tests.support.git import MANAGER, Git
from tests.support.kube import Kube, Object
from tests.support.service import Service
from tests.support.traffic import Mix, Traffic
from tests.support.wait import until

PERIOD = 5.0
LIGHT = Mix(grpc=1, fresh=1, kept=1, rate=10)


def manifest(host: str, gateway: Gateway, predictor: dict[str, Any]) -> Object:
    return {
        "apiVersion": "conch.dev/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": "double"},
        "spec": {
            "predictor": {**predictor, "minReplicas": 2},
            "rollout": {
                "steps": [{"weight": 20}, {"pause": "Manual"}],
                "analysis": [{"successRate": {"min": "95%"}, "minSamples": 5, "interval": "2s"}],
            },
            "traffic": {"gateways": [gateway.parent], "hostnames": [host]},
        },
    }


def test_git_and_a_rollout_do_not_fight(
    kube: Kube, namespace: str, gateway: Gateway, figure: Callable[[str], None]
) -> None:
    host = f"{namespace}.example.com"
    first, second = (manifest(host, gateway, build_predictor(factor)) for factor in (2, 3))
    broken = {**build_predictor(3), "pod": environment(FACTOR=3, FAILS=1.0)}
    service = Service(kube, namespace, "double")
    with Git(kube, namespace, first, PERIOD) as git:
        until(lambda: git.applied, "Git has applied it")
        stable = service.until_ready()["stable"]
        wait_for_shares(gateway, service, {2: 100})
        with Traffic(gateway.address, gateway.address, build_request(2, 3), LIGHT, host) as traffic:
            git.manifest = second
            until(lambda: waits_for(service) == "WaitsForPromotion", "the rollout waits")
            quiet(git, service)
            service.request("promote")
            settled = service.settle()["stable"]
            assert settled != stable
            quiet(git, service)
        assert not traffic.failed, traffic
        with Traffic(gateway.address, gateway.address, build_request(2, 3), LIGHT, host) as traffic:
            git.manifest = manifest(host, gateway, broken)
            until(lambda: waits_for(service) == "AnalysisFailed", "the bad change is given up")
            until(lambda: len(service.children(DEPLOYMENT)) == 1, "its pods are gone")
            quiet(git, service)
            assert len(service.children(DEPLOYMENT)) == 1, "what failed stays refused, however often it is applied"
            assert service.status["stable"] == settled
            git.manifest = first
            until(lambda: waits_for(service) == "WaitsForPromotion", "the way back waits")
            service.request("promote")
            assert service.settle()["stable"] == stable
            quiet(git, service)
        figure(f"{git.applied} applies of three manifests\n{traffic}")


def waits_for(service: Service) -> str:
    rollout: dict[str, Any] = service.status.get("rollout") or {}
    return str(rollout.get("reason", ""))


def quiet(git: Git, service: Service) -> None:
    """Two applies more: no write of the operator's in answer, and nothing that Git owns is otherwise."""

    def versions() -> dict[str, str]:
        metas = [(kind, body["metadata"]) for kind in (DEPLOYMENT, HTTP_ROUTE) for body in service.children(kind)]
        seen = {f"{kind.name}/{meta['name']}": meta["resourceVersion"] for kind, meta in metas}
        return {**seen, "the spec": str(service.body["metadata"]["generation"])}

    def rests() -> bool:
        before = versions()
        git.rounds(1)
        return versions() == before

    until(rests, "two applies change nothing")
    # kubectl diff reads the service twice and shows a status write between the two reads.
    until(lambda: not git.diff(), "kubectl diff finds no difference", seen=git.diff)
    owners = {entry["manager"] for entry in service.body["metadata"]["managedFields"] if not entry.get("subresource")}
    assert MANAGER in owners
    assert "conch" not in owners, "the operator writes nothing but the status"
