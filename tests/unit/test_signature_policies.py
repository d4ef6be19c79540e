"""The signature policy of a namespace in the operator: the cache, what it holds back, and what the status reports."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from conch.api import InferenceService
from conch.api.kinds import CONFIG_MAP, CONTROLLER_REVISION, DEPLOYMENT, NAMESPACE, Kind, Ref
from conch.api.names import ANNOTATION_SIGNATURE_PATH, LABEL_POLICY, LABEL_SIGNATURE_POLICY
from conch.cli.actions import promote
from conch.cli.status import build_status_text
from conch.decide import build_report_requests
from conch.desire.defaults import PodDefaults
from conch.desire.pod import build_pod_template
from conch.events.handlers import EventHandlers
from conch.observe import SignaturePolicies, Store
from conch.observe.signature_policies import find_written_policy, read_policy
from conch.queue import WorkQueue
from conch_contract import AgentReport, ModelReport, ModelState, SignaturePolicy, names
from tests.support import examples
from tests.unit.simulation import KEY, Cluster, build_manifest

HOME = "conch-system"
KEYS = {"key.pub": "-----BEGIN PUBLIC KEY-----"}
POLICY = SignaturePolicy.build("prod", KEYS)
BROKEN = SignaturePolicy(name="prod", problem="The ConfigMap prod is missing.")


def _body(kind: Kind, name: str, version: int = 1, uid: str = "", **parts: Any) -> dict[str, Any]:
    meta = {"name": name, "uid": uid or f"uid-{name}", "resourceVersion": str(version)}
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": {**meta, **parts.pop("meta", {})}, **parts}


def _namespace(policy: str = "prod", version: int = 1, uid: str = "") -> dict[str, Any]:
    return _body(NAMESPACE, KEY.namespace, version, uid, meta={"labels": {LABEL_SIGNATURE_POLICY: policy}})


def _config_map(version: int = 1, uid: str = "", path: str = "", **parts: Any) -> dict[str, Any]:
    annotations = {ANNOTATION_SIGNATURE_PATH: path} if path else {}
    meta = {"labels": {LABEL_POLICY: "signature"}, "annotations": annotations, "namespace": HOME}
    return _body(CONFIG_MAP, "prod", version, uid, meta=meta, **{"data": KEYS, **parts})


# The cache.


def test_a_namespace_has_the_policy_that_its_label_names() -> None:
    policies = SignaturePolicies(HOME)
    assert policies.find(KEY.namespace) is None
    assert policies.put(_config_map()) == set()
    assert policies.put(_namespace()) == {KEY.namespace}
    assert policies.find(KEY.namespace) == POLICY
    assert policies.find("another") is None


@pytest.mark.parametrize(
    ("home", "name", "problem"),
    [
        (
            HOME,
            "prod",
            "and the namespace conch-system has no ConfigMap prod with the label conch.dev/policy=signature",
        ),
        (HOME, "", "The label conch.dev/signature-policy of the Namespace is empty. Set it to the name of a policy."),
        ("", "prod", "names 'prod', and the operator runs in no namespace that could have it."),
    ],
)
def test_a_policy_that_is_missing_is_a_policy(home: str, name: str, problem: str) -> None:
    policies = SignaturePolicies(home)
    policies.put(_namespace(name))
    found = policies.find(KEY.namespace)
    assert found is not None
    assert problem in found.problem
    assert (found.version, found.trusted) == ("", {})


@pytest.mark.parametrize(
    ("config_map", "problem"),
    [
        (_config_map(data={}), "has no keys"),
        (_config_map(data=None), "has no keys"),
        (_config_map(binaryData={"key.pub": "AAAA"}), "has binaryData"),
        (_config_map(data={"key.pub": "x" * (129 << 10)}), "has 132103 bytes. Write at most 131072."),
        (_config_map(path="../model.sig"), "has '../model.sig' in conch.dev/signature-path"),
        (_config_map(path="a" * 300), "in conch.dev/signature-path"),
    ],
    ids=["empty", "none", "binary", "large", "path", "long path"],
)
def test_a_policy_that_cannot_be_read_has_the_reason(config_map: dict[str, Any], problem: str) -> None:
    found = read_policy(config_map)
    assert problem in found.problem
    assert found.version == ""


def test_a_policy_has_the_path_of_its_signatures() -> None:
    assert read_policy(_config_map(path="signatures/release.sig")).path == "signatures/release.sig"


def test_only_what_is_read_wakes_the_services_of_a_namespace() -> None:
    policies = SignaturePolicies(HOME)
    policies.put(_namespace())
    assert policies.put(_config_map(2)) == {KEY.namespace}
    assert not policies.put(_config_map(3)), "nothing has changed"
    assert not policies.put(_config_map(1, data={"other.pub": "x"})), "an older version"
    assert not policies.put(_namespace(version=4))
    assert policies.put(_namespace("dev", 5)) == {KEY.namespace}
    assert not policies.put(_config_map(6, data={"b.pub": ""})), "no namespace names it"
    assert not policies.discard(_namespace("dev", 7, uid="another"))
    assert policies.discard(_namespace("dev", 7)) == {KEY.namespace}
    assert policies.find(KEY.namespace) is None


def test_a_list_forgets_what_it_does_not_have() -> None:
    policies = SignaturePolicies(HOME)
    policies.put(_namespace(version=5))
    policies.put(_config_map(5))
    assert not policies.retain(NAMESPACE, "another", frozenset(), 9), "a list of another name"
    assert not policies.retain(CONFIG_MAP, "", frozenset(), 4), "it is newer than the list"
    assert policies.retain(CONFIG_MAP, "", frozenset(), 9) == {KEY.namespace}
    found = policies.find(KEY.namespace)
    assert found is not None
    assert found.problem
    assert policies.retain(NAMESPACE, KEY.namespace, frozenset(), 9) == {KEY.namespace}
    assert policies.find(KEY.namespace) is None


async def test_a_change_queues_the_services_of_the_namespace() -> None:
    store, queue = Store(), WorkQueue()
    other = build_manifest()
    other["metadata"] |= {"namespace": "another", "uid": "another"}
    for body in (build_manifest(), other):
        body["metadata"]["resourceVersion"] = "1"
        store.put(body)
    handlers = EventHandlers(store, None, queue, SignaturePolicies(HOME))
    handlers.listed.set()
    for event in (_namespace(), _config_map(2)):
        handlers.handle_policy(event)
        assert await queue.get() == KEY
        queue.done(KEY)
    handlers.handle_policy(_namespace(version=3), is_deleted=True)
    assert await queue.get() == KEY
    assert len(queue) == 0, "not those of another namespace"


def test_the_example_is_a_policy_of_the_key_that_has_signed_the_examples() -> None:
    file = examples.FOLDER / "administrator" / "signature-policy.yaml"
    namespace, config_map = yaml.safe_load_all(file.read_text())
    assert namespace["metadata"]["labels"] == {LABEL_SIGNATURE_POLICY: config_map["metadata"]["name"]}
    assert (config_map["metadata"]["namespace"], config_map["metadata"]["labels"]) == (
        HOME,
        {LABEL_POLICY: "signature"},
    )
    [key] = examples.build_trusted_keys()["data"].values()
    assert read_policy(config_map).trusted == {"release.pub": key}


# The service.


def _report(*verified: str, digest: str = "sha256:1") -> AgentReport:
    model = ModelReport(name="magika", state=ModelState.READY, digest=digest, verified=verified)
    return AgentReport(ready=True, models=(model,))


def _begin(policy: SignaturePolicy | None, *verified: str, pods: int = 2, **rollout: Any) -> tuple[Cluster, str]:
    """Return a cluster whose first revision serves, and its name."""
    cluster = Cluster(build_manifest(rollout=rollout, minReplicas=pods))
    cluster.policy, cluster.reports_on_request = policy, True
    cluster.reconcile()
    stable = cluster.decision().wanted
    for index in range(pods):
        cluster.put_pod(stable, index, ready=True, report=_report(*verified))
    cluster.settle()
    return cluster, stable


def _read_written(cluster: Cluster, name: str) -> SignaturePolicy | None:
    return find_written_policy([cluster.objects[Ref(CONFIG_MAP, name)]])


def test_pods_get_the_policy_beside_the_manifests_and_a_change_of_it_changes_no_pod() -> None:
    cluster, stable = _begin(None)
    ref, before = Ref(DEPLOYMENT, stable), dict(cluster.objects)
    assert names.POLICY_FILE not in cluster.objects[Ref(CONFIG_MAP, stable)]["data"]
    for policy in (POLICY, SignaturePolicy.build("prod", {"other.pub": ""}), BROKEN):
        cluster.policy = policy
        cluster.settle()
        assert _read_written(cluster, stable) == policy
        assert cluster.objects[ref]["spec"] == before[ref]["spec"]
        assert cluster.objects[Ref(CONTROLLER_REVISION, stable)] == before[Ref(CONTROLLER_REVISION, stable)]
    cluster.policy = None
    cluster.settle()
    assert _read_written(cluster, stable) is None
    manifest = cluster.objects[Ref(CONFIG_MAP, stable)]["data"]
    assert manifest.keys() == {names.MANIFEST_FILE}


def test_all_revisions_of_a_workload_and_their_jobs_have_the_policy() -> None:
    cluster, stable = _begin(POLICY, POLICY.check, strategy="Swap")
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    config_maps = [ref.name for ref in cluster.objects if ref.kind == CONFIG_MAP]
    assert stable in config_maps
    assert len(config_maps) == 2
    assert [_read_written(cluster, name) for name in config_maps] == [POLICY, POLICY], "a Job mounts the second one"


@pytest.mark.parametrize(
    ("policy", "verified", "condition"),
    [
        (None, (), ("", "")),
        (POLICY, (), ("False", "ModelsNotSigned")),
        (POLICY, ("Signature",), ("False", "ModelsNotSigned")),
        (POLICY, ("SignaturePolicy:000000000000",), ("False", "ModelsNotSigned")),
        (POLICY, ("Digest", "Signature", POLICY.check), ("True", "ModelsSigned")),
        (BROKEN, (POLICY.check,), ("False", "SignaturePolicyUnreadable")),
    ],
)
def test_the_condition_has_whether_what_serves_is_signed(
    policy: SignaturePolicy | None, verified: tuple[str, ...], condition: tuple[str, str]
) -> None:
    cluster, stable = _begin(None, *verified)
    cluster.policy = policy
    cluster.settle()
    assert cluster.condition("SignaturePolicy") == condition
    assert cluster.condition("Ready") == ("True", "Served"), "what serves goes on"
    if condition[1] == "ModelsNotSigned":
        found = cluster.status.condition("SignaturePolicy")
        assert found is not None
        assert f"without a signature of the policy prod: magika of revision {stable}." in found.message
        text = "\n".join(map(str, build_status_text(cluster.snapshot().service, cluster.now)))
        assert "ModelsNotSigned" in text


def test_a_fleet_counts_as_signed_when_all_pods_are() -> None:
    cluster, stable = _begin(None)
    cluster.policy = POLICY
    cluster.settle()
    cluster.put_pod(stable, 0, ready=True, report=_report(POLICY.check), generation="new")
    cluster.settle()
    assert cluster.condition("SignaturePolicy") == ("False", "ModelsNotSigned")
    assert len(build_report_requests(cluster.snapshot())) == 2, "all are requested, until all are signed"
    cluster.put_pod(stable, 1, ready=True, report=_report(POLICY.check), generation="new")
    cluster.settle()
    assert cluster.condition("SignaturePolicy") == ("True", "ModelsSigned")
    assert not build_report_requests(cluster.snapshot()), "a settled fleet costs no request"


def test_a_fleet_without_reports_is_not_known_to_be_signed() -> None:
    cluster = Cluster(build_manifest())
    cluster.policy = POLICY
    cluster.settle()
    assert cluster.condition("SignaturePolicy") == ("Unknown", "Pending")


@pytest.mark.parametrize("strategy", ["Progressive", "Recreate", "Swap"])
@pytest.mark.parametrize("pods", [1, 2])
def test_no_rollout_begins_under_a_policy_that_cannot_be_read(strategy: str, pods: int) -> None:
    cluster, stable = _begin(POLICY, POLICY.check, pods=pods, strategy=strategy)
    cluster.policy = BROKEN
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    wanted = cluster.decision().wanted
    assert wanted != stable
    assert [ref.name for ref in cluster.objects if ref.kind == DEPLOYMENT] == [stable]
    assert cluster.objects[Ref(DEPLOYMENT, stable)]["spec"]["replicas"] == pods
    assert cluster.served() == {stable: pods}
    rollout = cluster.status.rollout
    assert rollout is not None
    assert (rollout.admission, rollout.reason) == ("Pending", "SignaturePolicyUnreadable")
    assert cluster.condition("Ready") == ("False", "SignaturePolicyUnreadable")
    assert cluster.condition("Serving") == ("True", "Answering")
    assert "they load no model until it can" in promote(cluster.snapshot().service, cluster.now, full=False).message
    cluster.now += 3600
    cluster.settle()
    assert cluster.status.rollout is not None
    assert cluster.status.rollout.phase == "Progressing", "the wait has no deadline"
    cluster.policy = POLICY
    cluster.settle()
    assert cluster.status.rollout is not None
    assert cluster.status.rollout.reason != "SignaturePolicyUnreadable"
    if strategy == "Progressive":
        assert Ref(DEPLOYMENT, wanted) in cluster.objects


def test_a_rollout_that_has_begun_goes_on_and_its_pods_report_why_they_load_nothing() -> None:
    cluster, stable = _begin(POLICY, POLICY.check)
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    wanted = cluster.decision().wanted
    cluster.policy = BROKEN
    model = ModelReport(
        name="magika", state=ModelState.FAILED, reason="SignaturePolicyUnreadable", message="No keys can be read."
    )
    for index in range(2):
        cluster.put_pod(wanted, index, ready=False, report=AgentReport(models=(model,)))
    cluster.settle()
    assert cluster.condition("Ready") == ("False", "SignaturePolicyUnreadable")
    assert cluster.served()[stable] == 2


def test_a_first_revision_reports_the_policy_that_its_pods_wait_for() -> None:
    cluster = Cluster(build_manifest())
    cluster.policy = BROKEN
    cluster.settle()
    wanted = cluster.decision().wanted
    assert _read_written(cluster, wanted) == BROKEN
    assert cluster.condition("SignaturePolicy") == ("False", "SignaturePolicyUnreadable")


def test_variants_have_the_policy_too() -> None:
    cluster, _ = _begin(POLICY, POLICY.check)
    cluster.edit_variants({"name": "b", "weight": 10, "predictor": {"model": {"storageUri": "s3://models/b"}}})
    cluster.settle()
    variant = cluster.decision("b").wanted
    assert _read_written(cluster, variant) == POLICY
    cluster.put_pod(variant, 0, ready=True, report=_report())
    cluster.put_pod(variant, 1, ready=True, report=_report())
    cluster.settle()
    found = cluster.status.condition("SignaturePolicy")
    assert found is not None
    assert (found.status, found.reason) == ("False", "ModelsNotSigned")
    assert found.message.startswith("Variant b: ")


def test_an_edit_of_the_written_policy_is_undone() -> None:
    cluster, stable = _begin(POLICY, POLICY.check)
    body = json.loads(json.dumps(cluster.objects[Ref(CONFIG_MAP, stable)]))
    for edited in ({**body["data"], names.POLICY_FILE: "{}"}, {names.MANIFEST_FILE: body["data"][names.MANIFEST_FILE]}):
        cluster.put({**body, "data": edited})
        cluster.settle()
        assert _read_written(cluster, stable) == POLICY


def test_what_is_written_is_read_for_a_plan() -> None:
    assert find_written_policy([build_manifest(), _config_map()]) is None
    assert find_written_policy([_config_map(data={names.POLICY_FILE: POLICY.to_json()})]) == POLICY
    assert find_written_policy([_config_map(data={names.POLICY_FILE: "{"})]) is None


# The pods.


@pytest.mark.parametrize("predictor", [{}, {"cache": {"claimName": "models"}}])
def test_triton_has_no_file_before_its_checks(predictor: dict[str, Any]) -> None:
    """A parameter of a signed model can name any file of Triton's container: no download may be there."""
    manifest = build_manifest()
    manifest["spec"]["predictor"] |= predictor
    template = build_pod_template(InferenceService.parse(manifest), "m-1", PodDefaults(image="x"))
    [triton] = template["spec"]["containers"]
    [models] = [mount for mount in triton["volumeMounts"] if mount["mountPath"].startswith(names.MODELS_DIR)]
    folder = {"name": "conch-models", "mountPath": "/conch/models/repository", "subPath": "repository"}
    assert models == {**folder, "readOnly": True}
