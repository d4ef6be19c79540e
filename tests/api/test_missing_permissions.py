"""An operator that lacks a permission or the CRD is never Ready: `helm upgrade --wait` keeps the old pods."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
import yaml

from conch.api.kinds import (
    AUTOSCALER,
    BACKEND_TRAFFIC_POLICY,
    CONFIG_MAP,
    DISRUPTION_BUDGET,
    INFERENCE_SERVICE,
    LEASE,
    Kind,
)
from conch.write import rbac
from tests.api.metrics_api import MetricsProcess
from tests.api.operator import Operator, are_ready, install_crd, isvc, kubeconfig_of, relayed, remove_crd
from tests.cluster import Cluster
from tests.support.kube import Kube, KubectlError
from tests.support.wait import until

_GRANT = "grant the permissions of the Helm chart"


class Account:
    """A service account for the operator, with a role that lacks the kinds of a test."""

    def __init__(self, kube: Kube, namespace: str, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self._kube = kube
        self._namespace = namespace
        self._grantee = (f"--clusterrole={namespace}", f"--serviceaccount={namespace}:operator")
        self._user = f"--as=system:serviceaccount:{namespace}:operator"

    def grant(self, *missing: Kind) -> None:
        """Give the role all permissions of the Helm chart except those on some kinds."""
        grants = [grant for grant in (*rbac.SERVING, *rbac.CLUSTER) if grant.kind not in missing]
        rules = [
            {"apiGroups": [grant.kind.group], "resources": [grant.resource], "verbs": list(grant.verbs)}
            for grant in grants
        ]
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole"}
        self._kube.apply({**role, "metadata": {"name": self._namespace}, "rules": rules})

    def grant_lease(self, verbs: Collection[str], *, exists: bool) -> None:
        """Give the account these verbs on Leases in the test's namespace, where the operator's Lease may exist."""
        here = f"--namespace={self._namespace}"
        self._kube.run("create", "role", "leader", f"--verb={','.join(verbs)}", "--resource=leases", here)
        self._kube.run("create", "rolebinding", "leader", here, "--role=leader", self._grantee[1])
        if exists:
            metadata = {"name": "conch-operator"}
            self._kube.create(LEASE, {"metadata": metadata}, self._namespace)

    def bind(self) -> None:
        """Grant the role in the whole cluster, and wait until the API server has seen it."""
        self._kube.run("create", "clusterrolebinding", self._namespace, *self._grantee)
        self.wait_until_it_lists(INFERENCE_SERVICE)

    def bind_in_namespace(self) -> None:
        """Grant the role in the test's namespace."""
        here = f"--namespace={self._namespace}"
        self._kube.run("create", "rolebinding", "operator", here, *self._grantee)
        self.wait_until_it_lists(INFERENCE_SERVICE, here)

    def wait_until_it_lists(self, kind: Kind, where: str = "--all-namespaces") -> None:
        """Wait until the API server has seen the permission."""
        resource = f"{kind.plural}.{kind.group}".rstrip(".")

        def can_list() -> bool:
            try:
                self._kube.run("auth", "can-i", "list", resource, where, self._user)
            except KubectlError:
                return False
            return True

        until(can_list, f"the account can list {resource}")

    def remove(self) -> None:
        self._kube.run("delete", "clusterrole,clusterrolebinding", self._namespace, "--ignore-not-found")


@pytest.fixture
def account(cluster: Cluster, kube: Kube, namespace: str, tmp_path: Path) -> Iterator[Account]:
    file = tmp_path / "kubeconfig"
    config = kubeconfig_of(cluster, kube, namespace, "operator")
    file.write_text(yaml.safe_dump({**config, "current-context": "operator"}))
    account = Account(kube, namespace, file)
    yield account
    account.remove()


def test_missing_permissions_end_it_with_the_kinds(
    cluster: Cluster, kube: Kube, namespace: str, log: Path, account: Account
) -> None:
    account.grant(DISRUPTION_BUDGET, AUTOSCALER)
    account.bind()
    with Operator(cluster, log, KUBECONFIG=str(account.kubeconfig)) as operator:
        assert operator.wait(20) == 1
        output = operator.log()
        assert "conch: no access to horizontalpodautoscalers, poddisruptionbudgets: " in output, output
        assert 'cannot list resource "poddisruptionbudgets" in API group "policy"' in output
        assert output.endswith(f"; {_GRANT}\n")
        assert "Traceback" not in output

        account.grant()
        account.wait_until_it_lists(DISRUPTION_BUDGET)
        operator.start()
        kube.apply(isvc(), namespace)
        until(are_ready(kube, namespace), "with the whole role it works")


@pytest.mark.parametrize("verb", ["get", "create", "update"])
def test_the_lease_must_be_accessible(verb: str, cluster: Cluster, namespace: str, log: Path, account: Account) -> None:
    """What only a leader needs is missed by a standby replica too, before it is Ready."""
    account.grant(LEASE)
    account.bind()
    account.grant_lease({"get", "create", "update"} - {verb}, exists=verb == "update")
    with Operator(cluster, log, KUBECONFIG=str(account.kubeconfig), CONCH_LEASE_NAMESPACE=namespace) as operator:
        assert operator.wait(20) == 1
        output = operator.log()
        assert f"conch: no access to {LEASE.plural}: " in output, output
        assert f"cannot {verb} resource" in output
        assert output.endswith(f"; {_GRANT}\n")


def test_the_metrics_api_needs_the_front_proxys_authority(
    cluster: Cluster, kube: Kube, log: Path, account: Account
) -> None:
    account.grant(CONFIG_MAP)
    account.bind()
    with MetricsProcess(cluster, kube, log, KUBECONFIG=str(account.kubeconfig)) as metrics:
        assert metrics.process is not None
        assert metrics.process.wait(20) == 1
        assert "conch-metrics: no access to configmaps: " in metrics.log()
        assert metrics.log().endswith(f"; {_GRANT}\n")


def test_no_permission_is_needed_for_an_api_that_is_not_installed(
    cluster: Cluster, kube: Kube, namespace: str, log: Path, account: Account
) -> None:
    account.grant(BACKEND_TRAFFIC_POLICY)
    account.bind()
    with Operator(cluster, log, KUBECONFIG=str(account.kubeconfig)):
        kube.apply(isvc(), namespace)
        until(are_ready(kube, namespace), "it works without Envoy Gateway and a permission for its kind")


def test_a_namespace_without_permissions_is_named(
    cluster: Cluster, namespace: str, log: Path, account: Account
) -> None:
    account.grant()
    account.bind_in_namespace()
    env = {"KUBECONFIG": str(account.kubeconfig), "CONCH_NAMESPACES": f"{namespace},team-b"}
    with Operator(cluster, log, **env) as operator:
        assert operator.wait(20) == 1
        output = operator.log()
        assert 'in the namespace "team-b"' in output, output
        assert f'in the namespace "{namespace}"' not in output
        assert output.endswith(f"; {_GRANT}, and remove deleted namespaces from watchNamespaces\n")


def test_a_crd_that_is_missing_is_waited_for(cluster: Cluster, kube: Kube, namespace: str, log: Path) -> None:
    remove_crd(kube)
    try:
        with Operator(cluster, log) as operator:
            text = until_it_waits(operator)
            assert text.startswith(f"waiting: no access to {INFERENCE_SERVICE.plural}: "), text
            assert text.strip().endswith("; install the CustomResourceDefinitions of the folder crds")
            install_crd(kube)
            kube.apply(isvc(), namespace)
            until(are_ready(kube, namespace), "it works when the CRD is there")
    finally:
        install_crd(kube)


def test_an_api_server_that_does_not_answer_yet_is_waited_for(
    cluster: Cluster, kube: Kube, namespace: str, log: Path, tmp_path: Path
) -> None:
    relay, file = relayed(cluster, tmp_path)
    relay.refuses = True
    with Operator(cluster, log, KUBECONFIG=str(file)) as operator:
        until_it_waits(operator)
        operator.stop()  # SIGTERM ends it while it waits
        operator.start()
        until_it_waits(operator)
        relay.refuses = False
        until(lambda: operator.readiness()[0] == 200, "it is ready", seen=operator.readiness)
        kube.apply(isvc(), namespace)
        until(are_ready(kube, namespace), "it works")
    relay.close()


def until_it_waits(operator: Operator) -> str:
    """Wait until the operator is not Ready, and waits; return the text of /readyz."""

    def waits() -> str:
        status, text = operator.readiness()
        return text if status == 503 and text.startswith("waiting: ") else ""

    return until(waits, "it is not ready, and waits", seen=operator.readiness)
