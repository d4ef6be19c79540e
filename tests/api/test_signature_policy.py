"""A signature policy that an administrator sets on a Namespace, and what its users cannot change of it.

The operator has the rights of the chart, and no others; users have Kubernetes' own roles edit and admin.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from conch.api.kinds import CONFIG_MAP, CONTROLLER_REVISION, DEPLOYMENT, INFERENCE_SERVICE, NAMESPACE, REPLICA_SET, Kind
from conch.api.names import LABEL_MANAGED_BY, LABEL_POLICY, LABEL_SIGNATURE_POLICY
from conch.observe.signature_policies import find_written_policy
from conch_contract import SignaturePolicy, names
from tests.api.operator import Operator, another_namespace, condition, isvc, kubeconfig_of
from tests.cluster import Cluster, clients
from tests.cluster.paths import REPOSITORY
from tests.support.kube import Kube, KubectlError, Object
from tests.support.wait import until

KEYS: Final = {"key.pub": "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"}
POLICY: Final = SignaturePolicy.build("prod", KEYS)
RELEASE: Final = "policy"
ACCOUNT: Final = f"{RELEASE}-conch-operator"
_INSTALLED: Final = {
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}
ANN: Final = "--as=ann"
MANAGED: Final = "Conch manages this object"


def _render(home: str, **values: Any) -> list[Object]:
    """Return the objects of the chart that give rights and take some."""
    done = subprocess.run(
        [
            clients.program("helm"),
            "template",
            RELEASE,
            REPOSITORY / "charts" / "conch",
            "--namespace",
            home,
            "--values=-",
        ],
        input=yaml.safe_dump({"autoscaling": {"metricsApi": "none"}, **values}),
        capture_output=True,
        text=True,
        check=True,
    )
    return [body for body in yaml.safe_load_all(done.stdout) if body and body["kind"] in _INSTALLED]


@pytest.fixture
def home(kube: Kube, namespace: str) -> Iterator[str]:
    """The operator's namespace."""
    with another_namespace(kube, f"{namespace[:40]}-home") as name:
        yield name


@pytest.fixture
def kubeconfig(cluster: Cluster, kube: Kube, home: str, tmp_path: Path) -> Path:
    """The kubeconfig of the operator's service account, which has no rights yet."""
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump({**kubeconfig_of(cluster, kube, home, ACCOUNT), "current-context": ACCOUNT}))
    return file


@contextlib.contextmanager
def _applied(kube: Kube, objects: list[Object]) -> Iterator[None]:
    """Objects that are gone in the end: most of them belong to no namespace."""
    document = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    kube.run("apply", "--filename=-", stdin=document)
    try:
        yield
    finally:
        kube.run("delete", "--ignore-not-found", "--wait=false", "--filename=-", stdin=document)


@pytest.fixture
def operator(
    request: pytest.FixtureRequest, kube: Kube, namespace: str, home: str, kubeconfig: Path
) -> Iterator[Operator]:
    """An operator with the rights of the chart, in all namespaces or in the test's alone; it is not started."""
    some = [namespace] if getattr(request, "param", "") == "some namespaces" else []
    cluster, log = request.getfixturevalue("cluster"), request.getfixturevalue("log")
    with _applied(kube, _render(home, watchNamespaces=some)):
        process = Operator(
            cluster,
            log,
            KUBECONFIG=str(kubeconfig),
            CONCH_LEASE_NAMESPACE=home,
            CONCH_LEASE_NAME=ACCOUNT,
            CONCH_NAMESPACES=",".join(some),
            CONCH_METRICS_API="none",
        )
        yield process
        process.stop()


def _set_policy(kube: Kube, namespace: str, home: str, data: dict[str, str] | None = None) -> None:
    """Create the policy, and name it in the Namespace, as an administrator does."""
    kube.create(
        CONFIG_MAP, {"metadata": {"name": "prod", "labels": {LABEL_POLICY: "signature"}}, "data": data or KEYS}, home
    )
    kube.run("label", "namespace", namespace, f"{LABEL_SIGNATURE_POLICY}=prod", "--overwrite")


def _list_own(kube: Kube, kind: Kind, namespace: str) -> list[Object]:
    return kube.list(kind, namespace, f"{LABEL_MANAGED_BY}=conch")


def _read_policy(kube: Kube, namespace: str) -> SignaturePolicy | None:
    """Return the policy that pods of the service read."""
    return find_written_policy(
        {**body, "apiVersion": CONFIG_MAP.api_version, "kind": CONFIG_MAP.name}
        for body in _list_own(kube, CONFIG_MAP, namespace)
    )


def _read_condition(kube: Kube, namespace: str) -> tuple[str, str]:
    found = condition(kube.get(INFERENCE_SERVICE, namespace, "magika") or {}, "SignaturePolicy")
    return found.get("status", ""), found.get("reason", "")


@pytest.mark.parametrize("operator", ["all namespaces", "some namespaces"], indirect=True)
def test_a_policy_reaches_the_pods_and_what_becomes_of_it(
    operator: Operator, kube: Kube, namespace: str, home: str
) -> None:
    _set_policy(kube, namespace, home)
    operator.start()
    kube.apply(isvc(), namespace)
    until(lambda: _read_policy(kube, namespace) == POLICY, "the ConfigMap of the pods has the policy")
    until(lambda: _read_condition(kube, namespace) == ("Unknown", "Pending"), "the status has the condition")

    kube.patch(CONFIG_MAP, home, "prod", {"data": {"key.pub": None, "other.pub": "x"}})
    changed = SignaturePolicy.build("prod", {"other.pub": "x"})
    until(lambda: _read_policy(kube, namespace) == changed, "a change of the policy reaches the pods")

    kube.delete(CONFIG_MAP, home, "prod")
    until(lambda: _read_condition(kube, namespace) == ("False", "SignaturePolicyUnreadable"), "the status has why")
    written = _read_policy(kube, namespace)
    assert written is not None
    assert f"the namespace {home} has no ConfigMap prod with the label" in written.problem
    assert not written.trusted, "pods load nothing"

    kube.run("label", "namespace", namespace, f"{LABEL_SIGNATURE_POLICY}-")
    until(lambda: _read_policy(kube, namespace) is None, "the Namespace needs no signatures any more")
    until(lambda: _read_condition(kube, namespace) == ("", ""), "the condition is gone")


@pytest.mark.parametrize("role", ["edit", "admin"])
def test_users_of_the_namespace_cannot_switch_it_off(
    operator: Operator, kube: Kube, namespace: str, home: str, role: str
) -> None:
    here = f"--namespace={namespace}"
    kube.run("create", "rolebinding", "ann", here, f"--clusterrole={role}", "--user=ann")
    _set_policy(kube, namespace, home)
    operator.start()
    kube.apply(isvc(), namespace)
    until(lambda: _list_own(kube, REPLICA_SET, namespace), "Kubernetes' controller writes its ReplicaSet")
    until(lambda: _read_policy(kube, namespace) == POLICY, "the ConfigMap of the pods has the policy")
    [config_map], [deployment] = (_list_own(kube, kind, namespace) for kind in (CONFIG_MAP, DEPLOYMENT))
    name = config_map["metadata"]["name"]

    def refuse(*arguments: str, stdin: str | None = None) -> str:
        with pytest.raises(KubectlError) as refusal:
            kube.run(*arguments, ANN, stdin=stdin)
        return str(refusal.value)

    # The objects that set the policy.
    assert "cannot patch resource" in refuse("label", "namespace", namespace, f"{LABEL_SIGNATURE_POLICY}-")
    for verb in ("update", "patch", "delete"):
        assert "no" in refuse("auth", "can-i", verb, f"namespaces/{namespace}", here)
    assert "cannot get resource" in refuse("get", "configmap", "prod", f"--namespace={home}")
    assert "cannot create resource" in refuse("create", "configmap", "other", f"--namespace={home}")

    # The objects that carry it.
    patch = json.dumps({"data": {names.POLICY_FILE: None}})
    _wait_for_refusal(kube, MANAGED, "patch", "configmap", name, here, f"--patch={patch}", ANN)
    image = {"spec": {"template": {"spec": {"containers": [{"name": "triton", "image": "other"}]}}}}
    for kind in ("deployment", "replicaset"):
        [body] = [deployment] if kind == "deployment" else _list_own(kube, REPLICA_SET, namespace)
        assert MANAGED in refuse("patch", kind, body["metadata"]["name"], here, f"--patch={json.dumps(image)}")
    unlabelled = json.dumps({"metadata": {"labels": {LABEL_MANAGED_BY: None}}})
    assert MANAGED in refuse("patch", "configmap", name, here, f"--patch={unlabelled}")
    assert MANAGED in refuse("delete", "configmap", name, here)
    own = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {names.MANIFEST_FILE: "{}"}}
    assert MANAGED in refuse("replace", "--force", here, "--filename=-", stdin=json.dumps(own))
    assert MANAGED in refuse("delete", "configmaps", "--all", here)
    [revision] = _list_own(kube, CONTROLLER_REVISION, namespace)
    assert "cannot patch resource" in refuse(
        "patch", "controllerrevision", revision["metadata"]["name"], here, f"--patch={unlabelled}"
    )
    meta = {"name": "own", "labels": deployment["spec"]["template"]["metadata"]["labels"]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [{"name": "a", "image": "a"}]}}
    assert MANAGED in refuse("create", here, "--filename=-", stdin=json.dumps(pod))

    # What they may do all the same.
    kube.run("scale", "deployment", deployment["metadata"]["name"], here, "--replicas=2", ANN)
    kube.run("delete", "deployment", deployment["metadata"]["name"], here, ANN)
    until(lambda: _list_own(kube, DEPLOYMENT, namespace), "Conch creates it again")
    kube.run("create", "configmap", "their-own", here, ANN)
    kube.run("label", "namespace", namespace, "other=label")  # by an administrator
    kube.run("patch", "configmap", name, here, "--patch={}")
    kube.run("apply", here, "--filename=-", ANN, stdin=json.dumps(isvc(uri="s3://models/other")))
    until(lambda: len(_list_own(kube, DEPLOYMENT, namespace)) == 1, "the change is reconciled")
    kube.run("delete", "inferenceservice", "magika", here, ANN)
    until(lambda: not _list_own(kube, CONFIG_MAP, namespace), "Kubernetes' controller deletes the ConfigMap")


def test_an_admission_policy_of_the_docs_admits_models_alone(kube: Kube, namespace: str) -> None:
    page = (REPOSITORY / "docs" / "signature-policies.md").read_text()
    [block] = re.findall("```yaml\n(.*?)```", page, re.DOTALL)
    kube.run("label", "namespace", namespace, f"{LABEL_SIGNATURE_POLICY}=prod")
    with _applied(kube, list(yaml.safe_load_all(block))):
        variant = {"name": "b", "predictor": {"pod": {"env": [{"name": "LD_PRELOAD", "value": "/x"}]}}}
        programs = [isvc(triton={"image": "other"}), isvc(triton={"args": ["--log-verbose=1"]})]
        programs += [isvc(cache={"claimName": "models"}), isvc()]
        programs[-1]["spec"]["variants"] = [variant]
        dry = ("create", f"--namespace={namespace}", "--dry-run=server", "--filename=-")
        for number, body in enumerate(programs):
            body["metadata"]["name"] = f"program-{number}"

            _wait_for_refusal(kube, "models alone are admitted here", *dry, stdin=json.dumps(body))
        plain = isvc(minReplicas=2, triton={"maxBatchSize": 4}, pod={"nodeSelector": {"disk": "ssd"}})
        plain["spec"]["variants"] = [{"name": "b", "predictor": {"minReplicas": 1}}]
        kube.apply(plain, namespace)


def _wait_for_refusal(kube: Kube, message: str, *arguments: str, stdin: str | None = None) -> None:
    """Wait until kubectl is refused with a message: the API server enforces an admission policy after a moment."""

    def read_refusal() -> str:
        try:
            kube.run(*arguments, stdin=stdin)
        except KubectlError as refusal:
            return str(refusal)
        return ""

    until(lambda: message in read_refusal(), f"the API server refuses it: {message}", seen=read_refusal)


def test_an_operator_without_the_right_to_namespaces_is_never_ready(
    cluster: Cluster, kube: Kube, home: str, kubeconfig: Path, log: Path
) -> None:
    """It would take a Namespace with a policy for one without."""
    chart = _render(home)
    for role in (body for body in chart if "rules" in body):
        role["rules"] = [rule for rule in role["rules"] if rule["resources"] != [NAMESPACE.plural]]
    with (
        _applied(kube, chart),
        Operator(
            cluster, log, KUBECONFIG=str(kubeconfig), CONCH_LEASE_NAMESPACE=home, CONCH_LEASE_NAME=ACCOUNT
        ) as process,
    ):
        assert process.wait(20) == 1
        assert "no access to namespaces: " in process.log()
