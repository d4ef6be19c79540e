"""What the operator can never watch ends it at once, before it is ready: `helm upgrade --wait` keeps the old pods."""

from __future__ import annotations

import time
from pathlib import Path

import yaml

from conch.api.kinds import AUTOSCALER, DISRUPTION_BUDGET, INFERENCE_SERVICE, Kind
from conch.write import rbac
from tests.api.operator import Operator, install_crd, isvc, kubeconfig_of, remove_crd, settled
from tests.cluster import Cluster
from tests.support.kube import Kube, Object
from tests.support.wait import until


def test_rights_that_are_missing_end_it_with_their_names(
    cluster: Cluster, kube: Kube, namespace: str, log: Path, tmp_path: Path
) -> None:
    file = tmp_path / "kubeconfig"
    known = kubeconfig_of(cluster, kube, namespace, "operator")
    file.write_text(yaml.safe_dump({**known, "current-context": "operator"}))
    role = role_without(namespace, DISRUPTION_BUDGET, AUTOSCALER)
    kube.apply(role)
    account = f"--serviceaccount={namespace}:operator"
    kube.run("create", "clusterrolebinding", namespace, f"--clusterrole={namespace}", account)
    try:
        with Operator(cluster, log, KUBECONFIG=str(file)) as operator:
            assert operator.wait(20) == 1
            said = operator.said()
            assert "conch: cannot watch horizontalpodautoscalers, poddisruptionbudgets: " in said, said
            assert 'cannot list resource "poddisruptionbudgets" in API group "policy"' in said
            assert said.endswith("; grant the rights that the Helm chart grants\n")
            assert "Traceback" not in said

            kube.apply(role_without(namespace))
            until(lambda: works(operator, kube, namespace), "with the whole role it works", 60)
    finally:
        kube.run("delete", "clusterrole,clusterrolebinding", namespace)


def test_without_the_crd_it_ends_and_says_so(cluster: Cluster, kube: Kube, log: Path) -> None:
    remove_crd(kube)
    try:
        with Operator(cluster, log) as operator:
            assert operator.wait(20) == 1
            said = operator.said()
            assert f"conch: cannot watch {INFERENCE_SERVICE.plural}: " in said, said
            assert said.endswith("; install the CustomResourceDefinitions of the folder crds\n")
    finally:
        install_crd(kube)


def role_without(name: str, *missing: Kind) -> Object:
    """Return a ClusterRole with all that the chart grants the operator for serving, but for some kinds."""
    grants = [grant for grant in (*rbac.SERVING, *rbac.CLUSTER) if grant.kind not in missing]
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": [
            {"apiGroups": [grant.kind.group], "resources": [grant.resource], "verbs": list(grant.verbs)}
            for grant in grants
        ],
    }


def works(operator: Operator, kube: Kube, namespace: str) -> bool:
    """Start the operator again if it has ended, as the kubelet does; whether it serves a service."""
    assert operator.process is not None
    if operator.process.poll() is not None:
        time.sleep(1)
        operator.start()
    kube.apply(isvc(), namespace)
    return settled(kube, namespace)()
