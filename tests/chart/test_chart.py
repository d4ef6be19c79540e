"""The chart, as Helm renders it: what lands in a cluster, and what the values refuse."""

import json
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from conch.api import crd
from conch.api.child_kinds import CHILDREN, WATCHED
from conch.api.kinds import GATEWAYS
from conch.api.metrics import API_SERVICE_NAME, TritonMetric
from conch.api.names import ANNOTATION_LABEL_SELECTOR, LABEL_MANAGED_BY, LABEL_SIGNATURE_POLICY
from conch.metrics.settings import MetricsSettings
from conch.settings import Settings
from conch.triton import adapter
from conch.write import rbac
from conch_contract import names
from tests.cluster import clients

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "conch"
Manifest = dict[str, Any]

# A second image, so that a test sees which of the two it gets.
PINNED = "sha256:" + "0" * 64


def render(values: Mapping[str, Any] | None = None, release: str = "conch") -> list[Manifest]:
    """Render the chart with some values; raises with Helm's words when it refuses them."""
    done = subprocess.run(
        [clients.program("helm"), "template", release, CHART, "--namespace", "conch-system", "--values", "-"],
        input=yaml.safe_dump(dict(values or {})),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def of_kind(manifests: Iterable[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def one(manifests: Iterable[Manifest], kind: str, name: str = "") -> Manifest:
    (found,) = [m for m in of_kind(manifests, kind) if not name or m["metadata"]["name"] == name]
    return found


OPERATOR, METRICS_API = "conch-operator", "conch-metrics-api"


def pod_of(manifests: Iterable[Manifest], name: str = OPERATOR) -> Manifest:
    spec: Manifest = one(manifests, "Deployment", name)["spec"]["template"]["spec"]
    return spec


def environment(manifests: Iterable[Manifest], name: str = OPERATOR) -> dict[str, str]:
    """The environment of the operator, or of the metrics API, as the kubelet would resolve it."""
    fields = {"metadata.namespace": "conch-system", "metadata.name": "pod-1"}
    return {
        variable["name"]: variable.get("value") or fields.get(field_path(variable), "")
        for variable in pod_of(manifests, name)["containers"][0]["env"]
    }


def field_path(variable: Manifest) -> str:
    return str(variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath", ""))


@pytest.fixture(scope="module")
def default() -> list[Manifest]:
    return render()


def test_helm_finds_nothing_to_lint() -> None:
    done = subprocess.run(
        [clients.program("helm"), "lint", "--strict", "--quiet", CHART], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_crd_is_the_generated_one_and_outlives_the_release(default: list[Manifest]) -> None:
    definition = one(default, "CustomResourceDefinition")
    annotations = definition["metadata"].pop("annotations")
    assert annotations == {"helm.sh/resource-policy": "keep"}
    assert definition == json.loads(json.dumps(crd.crd()))


def test_the_crd_can_be_left_to_others() -> None:
    assert not of_kind(render({"crds": {"install": False}}), "CustomResourceDefinition")


def test_generated_files_are_up_to_date() -> None:
    assert (CHART / "templates" / "rbac.yaml").read_text() == rbac.to_yaml()
    assert (CHART / "files" / "adapter-rules.yaml").read_text() == adapter.to_yaml()
    assert (CHART / "files" / "conch.dev_inferenceservices.yaml").read_text() == crd.to_yaml()


def test_an_adapter_of_others_gets_its_rules() -> None:
    rules = one(render({"autoscaling": {"metricsApi": "prometheus-adapter"}}), "ConfigMap", "conch-adapter-rules")
    named = [rule["name"]["as"] for rule in yaml.safe_load(rules["data"]["config.yaml"])["rules"]]
    assert named == [metric.value for metric in TritonMetric]
    assert not of_kind(render(), "ConfigMap")


def test_every_value_has_a_schema_and_every_schema_a_value() -> None:
    """A value that no schema knows would be refused; a schema without a value would be undocumented."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(values) == set(schema["properties"]) - {"global"}
    for name, value in values.items():
        node = schema["properties"][name]
        if node.get("additionalProperties") is False and isinstance(value, dict):
            assert set(value) <= set(node["properties"]), name


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"replcas": 3}, "'replcas' not allowed"),
        ({"log": {"level": "verbose"}}, "/log/level"),
        ({"image": {"tag": "a b"}}, "/image/tag"),
        ({"image": {"digest": "sha256:short"}}, "/image/digest"),
        ({"replicas": "two"}, "/replicas"),
        ({"watchNamespaces": ["Not A Name"]}, "/watchNamespaces/0"),
        ({"watchLabelSelector": "shard=b,"}, "/watchLabelSelector"),
        ({"watchLabelSelector": " "}, "/watchLabelSelector"),
        ({"signaturePolicies": {"otherOperators": ["conch-b"]}}, "/signaturePolicies/otherOperators/0"),
        ({"podLabels": {"app.kubernetes.io/name": "mine"}}, "propertyName 'app.kubernetes.io/name'"),
        ({"resources": {"cpu": 1}}, "'cpu' not allowed"),
        ({"analysis": {"prometheusServers": ["http://prometheus:9090"]}}, "/analysis/prometheusServers/0"),
        ({"networkPolicies": {"servingNamespaces": ["Not A Name"]}}, "/networkPolicies/servingNamespaces/0"),
        ({"networkPolicies": {"clients": [{"pods": {}}]}}, "/networkPolicies/clients/0"),
        ({"networkPolicies": {"clients": [{"ipBlock": {}, "podSelector": {}}]}}, "/networkPolicies/clients/0"),
        ({"networkPolicies": {"metricsFrom": [{"podSelector": {}}]}}, "/networkPolicies/metricsFrom/0"),
        (
            {"networkPolicies": {"servingNamespaces": ["a"]}, "autoscaling": {"metricsApi": "prometheus-adapter"}},
            "networkPolicies.metricsFrom is empty",
        ),
        ({"models": {"maxModelBytes": "much"}}, "/models/maxModelBytes"),
        ({"models": {"tmpSizeLimit": "10 GB"}}, "/models/tmpSizeLimit"),
        ({"models": {"maxModelBytesByNamespace": {"team-a": "0Gi"}}}, "/models/maxModelBytesByNamespace/team-a"),
        ({"serviceAccount": {"create": False}}, "serviceAccount.name must name"),
    ],
)
def test_wrong_values_are_refused_by_name(values: Manifest, complaint: str) -> None:
    with pytest.raises(RuntimeError) as refusal:
        render(values)
    assert complaint in str(refusal.value)


def test_the_operator_reads_its_settings_from_the_values() -> None:
    manifests = render(
        {
            "servingImage": {"repository": "registry.example/serving", "digest": PINNED, "pullPolicy": "Always"},
            "watchNamespaces": ["one", "two"],
            "watchLabelSelector": "!example.com/shard,tier in (a, b)",
            "log": {"format": "console", "level": "debug"},
            "workers": 4,
            "autoscaling": {"metricsApi": "none"},
            "analysis": {"prometheusServers": ["prometheus.monitoring.svc:9090", "*.example.com:*"]},
            "models": {
                "maxModelBytes": "50Gi",
                "maxModelBytesByNamespace": {"team-a": "200Gi"},
                "tmpSizeLimit": "10Gi",
            },
        },
        release="other",
    )
    settings = Settings.read(environment(manifests, "other-conch-operator"))
    assert settings.serving_image == f"registry.example/serving@{PINNED}"
    assert settings.pull_policy == "Always"
    assert settings.namespaces == ("one", "two")
    assert settings.label_selector == "!example.com/shard,tier in (a, b)"
    assert (settings.log_format, settings.log_level) == ("console", "debug")
    assert settings.workers == 4
    assert settings.lease_namespace == "conch-system"
    assert settings.lease_name == "other-conch-operator"
    assert settings.identity == "pod-1"
    assert settings.metrics_api == "none"
    assert settings.prometheus_servers == ("prometheus.monitoring.svc:9090", "*.example.com:*")
    assert settings.tmp_size_limit == "10Gi"
    assert settings.max_model_bytes == {"": 50 << 30, "team-a": 200 << 30}


def test_network_policies_leave_open_the_ports_that_clients_need(default: list[Manifest]) -> None:
    policies = {policy["metadata"]["name"]: policy for policy in of_kind(default, "NetworkPolicy")}
    assert policies.keys() == {OPERATOR, METRICS_API}
    for name, ports in ((OPERATOR, ["metrics"]), (METRICS_API, ["https", "metrics"])):
        spec = policies[name]["spec"]
        selector = one(default, "Deployment", name)["spec"]["selector"]["matchLabels"]
        assert spec["podSelector"] == {"matchLabels": selector}
        assert [port["port"] for rule in spec["ingress"] for port in rule["ports"]] == ports
        assert set(ports) < {port["name"] for port in pod_of(default, name)["containers"][0]["ports"]}
    assert not of_kind(render({"networkPolicies": {"create": False}}), "NetworkPolicy")


def test_serving_pods_of_the_namespaces_that_are_named_get_a_network_policy() -> None:
    gateway = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateways"}}}
    prometheus = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "prometheus"}}}
    values = {"servingNamespaces": ["one", "two"], "clients": [gateway], "metricsFrom": [prometheus]}
    manifests = render({"networkPolicies": values})
    policies = [each for each in of_kind(manifests, "NetworkPolicy") if each["metadata"]["name"] == "conch-serving"]
    assert [policy["metadata"]["namespace"] for policy in policies] == ["one", "two"]
    label = {"matchExpressions": [{"key": names.LABEL_SERVICE, "operator": "Exists"}]}
    assert policies[0]["spec"]["podSelector"] == label
    inference, metrics, peers = policies[0]["spec"]["ingress"]
    assert [port["port"] for port in inference["ports"]] == [names.HTTP_PORT, names.GRPC_PORT]
    assert inference["from"] == [{"podSelector": label}, gateway]
    assert [port["port"] for port in metrics["ports"]] == [names.METRICS_PORT, names.AGENT_PORT]
    operator, *others = metrics["from"]
    assert operator["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "conch-system"}
    [allowed] = operator["podSelector"]["matchExpressions"]
    for name in (OPERATOR, METRICS_API):
        pods = one(manifests, "Deployment", name)["spec"]["template"]["metadata"]["labels"]
        assert pods[allowed["key"]] in allowed["values"]
    assert others == [prometheus]
    assert peers == {"ports": [{"port": names.AGENT_PORT}], "from": [{"podSelector": label}]}


def test_the_metrics_api_reads_its_settings_from_the_values() -> None:
    manifests = render({"watchNamespaces": ["one"], "log": {"format": "console", "level": "debug"}}, release="other")
    name = "other-conch-metrics-api"
    settings = MetricsSettings.read(environment(manifests, name))
    assert (settings.service, settings.namespace) == (name, "conch-system")
    assert settings.namespaces == ("one",)
    assert (settings.log_format, settings.log_level) == ("console", "debug")
    container = pod_of(manifests, name)["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"https": settings.port, "probes": settings.probe_port, "metrics": settings.metrics_port}


def test_the_api_service_leads_to_the_pods_that_answer(default: list[Manifest]) -> None:
    registered = one(default, "APIService")
    assert registered["metadata"]["name"] == API_SERVICE_NAME
    assert "caBundle" not in registered["spec"]  # the metrics API's own to write
    at = registered["spec"]["service"]
    service = one(default, "Service", at["name"])
    assert at["namespace"] == service["metadata"]["namespace"]
    labels = one(default, "Deployment", METRICS_API)["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert service["spec"]["ports"][0] == {"name": "https", "port": 443, "targetPort": "https"}


@pytest.mark.parametrize("who", ["prometheus-adapter", "none"])
def test_a_metrics_api_of_others_leaves_nothing_of_ours(who: str) -> None:
    manifests = render({"autoscaling": {"metricsApi": who}})
    assert not of_kind(manifests, "APIService")
    assert not [m for m in manifests if "metrics-api" in m["metadata"]["name"]]


def test_ports_are_those_on_which_the_operator_listens(default: list[Manifest]) -> None:
    settings = Settings.read(environment(default))
    container = pod_of(default)["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"probes": settings.probe_port, "metrics": settings.metrics_port}
    probes = {container[kind]["httpGet"]["path"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert probes == {"/healthz", "/readyz"}


def test_the_metrics_service_finds_the_pods(default: list[Manifest]) -> None:
    service = one(default, "Service", "conch-operator-metrics")
    labels = one(default, "Deployment", OPERATOR)["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert service["spec"]["ports"][0]["targetPort"] == "metrics"


def test_a_release_of_any_name_selects_only_its_own_pods() -> None:
    for release in ("conch", "prod-conch", "serving", "r" * 53):
        manifests = render(release=release)
        selectors = []
        for deployment in of_kind(manifests, "Deployment"):
            assert len(deployment["metadata"]["name"]) <= 63
            assert deployment["spec"]["selector"]["matchLabels"]["app.kubernetes.io/instance"] == release
            selectors.append(deployment["spec"]["selector"])
        assert selectors[0] != selectors[1]
        budget = one(manifests, "PodDisruptionBudget")
        assert budget["spec"]["selector"] in selectors


def test_one_replica_has_no_disruption_budget() -> None:
    assert not of_kind(render({"replicas": 1}), "PodDisruptionBudget")


def test_pods_are_restricted(default: list[Manifest]) -> None:
    """Pod Security `restricted`, in its own words; the e2e tests have a real API server check it."""
    specs = [pod_of(default, name) for name in (OPERATOR, METRICS_API)]
    for spec in specs:
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in (container for spec in specs for container in spec["containers"]):
        secure = container["securityContext"]
        assert secure["allowPrivilegeEscalation"] is False
        assert secure["capabilities"] == {"drop": ["ALL"]}
        assert secure["readOnlyRootFilesystem"]


def test_the_operator_sees_no_secret_and_no_wildcard(default: list[Manifest]) -> None:
    for role in (*of_kind(default, "ClusterRole"), *of_kind(default, "Role")):
        for rule in role["rules"]:
            assert "secrets" not in rule["resources"]
            if role["metadata"]["name"] == "conch-metrics-api-view":
                continue  # people's, for a group that holds nothing but numbers
            assert "*" not in {*rule["resources"], *rule["verbs"], *rule["apiGroups"]}


def granted(role: Manifest) -> dict[str, set[str]]:
    return {resource: set(rule["verbs"]) for rule in role["rules"] for resource in rule["resources"]}


def test_the_cluster_role_covers_all_that_is_watched_and_written(default: list[Manifest]) -> None:
    verbs = granted(one(default, "ClusterRole", "conch-operator"))
    for kind in WATCHED:
        assert verbs[kind.plural] >= {"list", "watch"}
    for kind in GATEWAYS:
        assert verbs[kind.plural] == {"list", "watch"}
    for kind in CHILDREN:
        assert verbs[kind.plural] >= {"list", "watch", "get", "create", "patch"}
    assert verbs["leases"] == {"get"}  # of other installations


def test_leases_and_policies_are_the_only_rights_in_the_operators_own_namespace(default: list[Manifest]) -> None:
    role = one(default, "Role", "conch-operator-leader")
    create, named, read, policies = role["rules"]
    assert {resource for rule in (create, named, read) for resource in rule["resources"]} == {"leases"}
    assert (policies["resources"], policies["verbs"]) == (["configmaps"], ["list", "watch"])
    assert create["verbs"] == ["create"]
    assert named["resourceNames"] == [Settings.read(environment(default)).lease_name]
    assert named["verbs"] == ["update"]
    assert read["verbs"] == ["get"]


def test_every_grant_has_a_reason() -> None:
    for grant in (*rbac.SERVING, *rbac.CLUSTER, *rbac.OWN, *rbac.METRICS, *rbac.REGISTRATION, *rbac.VIEW, *rbac.EDIT):
        assert len(grant.why.split()) > 1, grant


def test_watched_namespaces_get_roles_and_the_cluster_one_for_their_labels(default: list[Manifest]) -> None:
    manifests = render({"watchNamespaces": ["one", "two"]})

    def of(name: str, kind: str) -> list[Manifest]:
        return [m for m in of_kind(manifests, kind) if m["metadata"]["name"].startswith(name)]

    assert not of(OPERATOR, "ClusterRoleBinding")
    [binding] = of(f"conch-system-{OPERATOR}", "ClusterRoleBinding")
    [rule] = one(manifests, "ClusterRole", binding["roleRef"]["name"])["rules"]
    assert (rule["resources"], rule["resourceNames"]) == (["namespaces"], ["one", "two"])
    assert rule["verbs"] == ["list", "watch"]
    # Of the cluster the metrics API has its own APIService, and may create TokenReviews and SubjectAccessReviews.
    bindings = {m["roleRef"]["name"] for m in of(METRICS_API, "ClusterRoleBinding")}
    assert bindings == {"conch-metrics-api-registration", "system:auth-delegator"}
    pods = {m["metadata"]["namespace"]: m["rules"] for m in of(METRICS_API, "Role")}
    assert pods["one"] == pods["two"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}]
    roles = {r["metadata"]["namespace"]: r for r in of(OPERATOR, "Role")}
    assert set(roles) == {"one", "two", "conch-system"}
    whole = one(default, "ClusterRole", "conch-operator")["rules"]
    cluster_wide = {grant.kind.plural for grant in rbac.CLUSTER}  # of other namespaces, and without one
    within = [rule for rule in whole if cluster_wide.isdisjoint(rule["resources"])]
    assert len(whole) - len(within) == len(cluster_wide)
    assert roles["one"]["rules"] == roles["two"]["rules"] == within
    for account in (OPERATOR, METRICS_API):
        assert one(manifests, "ServiceAccount", account)
        for binding in of(account, "RoleBinding"):
            (subject,) = binding["subjects"]
            assert (subject["name"], subject["namespace"]) == (account, "conch-system")


def test_the_own_namespace_may_be_watched_too() -> None:
    roles = of_kind(render({"watchNamespaces": ["conch-system"]}), "Role")
    assert len({role["metadata"]["name"] for role in roles}) == len(roles) == 3


def test_objects_of_namespaces_with_a_signature_policy_are_protected(default: list[Manifest]) -> None:
    policy, binding = (one(default, f"ValidatingAdmissionPolicy{part}") for part in ("", "Binding"))
    assert binding["spec"] == {"policyName": policy["metadata"]["name"], "validationActions": ["Deny"]}
    constraints = policy["spec"]["matchConstraints"]
    assert constraints["namespaceSelector"]["matchExpressions"] == [
        {"key": LABEL_SIGNATURE_POLICY, "operator": "Exists"}
    ]
    assert constraints["objectSelector"] == {"matchLabels": {LABEL_MANAGED_BY: "conch"}}
    variables = {each["name"]: each["expression"] for each in policy["spec"]["variables"]}
    assert variables["isConch"].endswith('["system:serviceaccount:conch-system:conch-operator"]')
    assert not of_kind(render({"signaturePolicies": {"admissionPolicy": False}}), "ValidatingAdmissionPolicy")


def test_two_installations_protect_their_own_namespaces_alone() -> None:
    policy = one(render({"watchNamespaces": ["one", "two"]}), "ValidatingAdmissionPolicy")
    _, within = policy["spec"]["matchConstraints"]["namespaceSelector"]["matchExpressions"]
    assert within == {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["one", "two"]}


def test_installations_that_share_a_namespace_may_write_the_same() -> None:
    manifests = render({"signaturePolicies": {"otherOperators": ["conch-system/conch-b-operator"]}})
    policy = one(manifests, "ValidatingAdmissionPolicy")
    variables = {each["name"]: each["expression"] for each in policy["spec"]["variables"]}
    users = ["conch-system:conch-operator", "conch-system:conch-b-operator"]
    listed = json.loads(variables["isConch"].partition(" in ")[2])
    assert listed == [f"system:serviceaccount:{user}" for user in users]


def test_the_metrics_api_of_another_release_is_used_as_its_own_and_not_installed() -> None:
    manifests = render({"autoscaling": {"metricsApi": "other-release"}}, release="conch-b")
    assert Settings.read(environment(manifests, "conch-b-operator")).metrics_api == "builtin"
    assert not of_kind(manifests, "APIService")
    assert not [each for each in manifests if "metrics-api" in each["metadata"]["name"]]


def test_the_role_states_the_label_selector_to_other_releases() -> None:
    for namespaces, kind in (([], "ClusterRole"), (["one"], "Role")):
        role = one(render({"watchLabelSelector": "!shard", "watchNamespaces": namespaces}), kind, "conch-operator")
        assert role["metadata"]["annotations"] == {ANNOTATION_LABEL_SELECTOR: "!shard"}


def test_rights_can_be_left_to_others() -> None:
    manifests = render({"rbac": {"create": False, "userRoles": False}})
    assert not [m for m in manifests if m["apiVersion"].startswith("rbac.")]


def test_users_roles_join_kubernetes_own(default: list[Manifest]) -> None:
    def joins(role: Manifest) -> set[str]:
        return {label.rpartition("-")[2] for label in role["metadata"]["labels"] if "aggregate-to" in label}

    view, edit = one(default, "ClusterRole", "conch-view"), one(default, "ClusterRole", "conch-edit")
    assert joins(view) == {"view", "edit", "admin"}
    assert joins(edit) == {"edit", "admin"}
    assert "inferenceservices/status" not in granted(edit)


def test_the_metrics_api_leaves_a_lost_node_soon(default: list[Manifest]) -> None:
    """It is one process; the operator has another replica, and Kubernetes' own patience."""
    patience = {taint["key"]: taint["tolerationSeconds"] for taint in pod_of(default, METRICS_API)["tolerations"]}
    assert patience == {"node.kubernetes.io/not-ready": 30, "node.kubernetes.io/unreachable": 30}
    assert "tolerations" not in pod_of(default)


def test_pod_placement_is_passed_on() -> None:
    values = {
        "imagePullSecrets": ["pull"],
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
        "podAnnotations": {"note": "yes"},
        "podLabels": {"team": "ml"},
        "image": {"digest": PINNED},
    }
    manifests = render(values)
    for deployment in (OPERATOR, METRICS_API):
        spec = pod_of(manifests, deployment)
        meta = one(manifests, "Deployment", deployment)["spec"]["template"]["metadata"]
        for name in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
            assert spec[name] == values[name]
        assert spec["imagePullSecrets"] == [{"name": "pull"}]
        assert spec["containers"][0]["image"] == f"conch/operator@{PINNED}"
        assert meta["annotations"] == {"note": "yes"}
        assert meta["labels"]["team"] == "ml"
