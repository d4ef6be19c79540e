"""Stories of the Gateways that a service names: they are deleted, created again, and lack features."""

import copy
from typing import Any

import pytest

from conch.api import InferenceService
from conch.api.kinds import BACKEND_TRAFFIC_POLICY, DEPLOYMENT, GATEWAY, GATEWAY_CLASS, HTTP_ROUTE, Ref, ServiceKey
from conch.decide import decide
from conch.observe import Snapshot, Store, observe
from conch.observe.gateways import GatewayKey
from conch.plan import ApplyRejected, find_unwritten
from conch.traffic import ObservedTraffic
from conch.traffic.features import find_unsupported_hash
from tests.unit.simulation import KEY, Cluster, build_manifest, read_weights, start_revision

PUBLIC = GatewayKey("infra", "public")
TRAFFIC = {"gateways": [{"name": "public", "namespace": "infra"}], "hostnames": ["magika.example.com"]}
ENVOY_GATEWAY = "gateway.envoyproxy.io/gatewayclass-controller"
STEPS = [{"weight": 50}, {"pause": "5m"}]
POLICY = Ref(BACKEND_TRAFFIC_POLICY, f"{KEY.name}-traffic")
TIMEOUTS = {"name": "HTTPRouteRequestTimeout"}


def start_service(**traffic: Any) -> tuple[Cluster, str]:
    """A service behind a Gateway; and the name of its revision."""
    rollout = {"steps": STEPS, "progressDeadline": "15m"}
    cluster = Cluster(build_manifest(minReplicas=2, rollout=rollout, traffic={**TRAFFIC, **traffic}))
    cluster.reconcile()
    stable = cluster.decision().wanted
    start_revision(cluster, stable)
    return cluster, stable


def change(cluster: Cluster) -> str:
    """Change the model. Return the candidate's name."""
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    return cluster.decision().wanted


def read_message(cluster: Cluster, kind: str = "TrafficProgrammed") -> str:
    condition = cluster.status.condition(kind)
    return condition.message if condition else ""


@pytest.mark.parametrize(
    ("kind", "reason", "words"),
    [
        (GATEWAY, "GatewayMissing", "traffic.gateways names Gateway infra/public, which does not exist"),
        (GATEWAY_CLASS, "GatewayClassMissing", "whose GatewayClass envoy does not exist"),
    ],
)
def test_a_deleted_gateway_is_named_although_the_route_has_its_old_status(kind: Any, reason: str, words: str) -> None:
    cluster, _ = start_service()
    assert cluster.condition("Ready") == ("True", "Served")
    cluster.remove_all(kind)
    cluster.settle()
    assert cluster.objects[Ref(HTTP_ROUTE, KEY.name)]["status"]["parents"], "the old conditions stay"
    assert cluster.condition("TrafficProgrammed") == cluster.condition("Ready") == ("False", reason)
    assert words in read_message(cluster)
    assert read_message(cluster, "Reconciling") == read_message(cluster)
    assert cluster.condition("Serving") == ("True", "Answering"), "requests in the cluster are answered"
    assert cluster.condition("RolloutComplete")[0] == "True"
    assert [event.reason for event in cluster.story].count(reason) == 1
    cluster.put_class()
    cluster.put_gateway(PUBLIC)
    cluster.settle()
    assert cluster.condition("Ready") == ("True", "Served")


def test_a_rollout_holds_while_its_gateway_is_gone_and_goes_on_when_it_is_back() -> None:
    cluster, stable = start_service()
    new = change(cluster)
    start_revision(cluster, new)
    assert read_weights(cluster) == {stable: 50, new: 50}
    cluster.remove_all(GATEWAY)
    cluster.now += 300
    cluster.start_pods(new)
    cluster.settle()
    cluster.start_pods(new)
    cluster.settle()
    assert read_weights(cluster) == {new: 100}, "the route has the last step"
    rollout = cluster.status.rollout
    assert rollout is not None
    assert rollout.reason == "GatewayMissing"
    for name in (stable, new):
        assert cluster.objects[Ref(DEPLOYMENT, name)]["spec"]["replicas"] == 2, "a reachable revision has pods"
    assert cluster.condition("Serving") == ("True", "Answering")

    cluster.now += 600
    cluster.settle()
    cluster.put_gateway(PUBLIC)
    cluster.settle()
    assert cluster.condition("TrafficProgrammed") == ("Unknown", "Pending"), (
        "its condition is of the change before the last"
    )
    start_revision(cluster, new)
    assert cluster.condition("Ready") == ("True", "Served")
    assert cluster.status.stable == new
    assert Ref(DEPLOYMENT, stable) not in cluster.objects


def test_a_gateway_that_stays_away_costs_the_rollout_and_not_the_service() -> None:
    cluster, stable = start_service()
    cluster.remove_all(GATEWAY)
    new = change(cluster)
    cluster.start_pods(new)
    cluster.settle()
    cluster.now += 901
    cluster.settle()
    assert read_weights(cluster) == {stable: 100}
    rollout = cluster.status.rollout
    assert rollout is not None
    assert rollout.phase == "Failed"
    assert "Gateway infra/public, which does not exist" in rollout.message
    assert cluster.objects[Ref(DEPLOYMENT, stable)]["spec"]["replicas"] == 2
    assert cluster.condition("Serving") == ("True", "Answering")


def test_a_timeout_that_a_gateway_cannot_enforce_is_reported_and_holds_no_rollout() -> None:
    cluster, stable = start_service(timeout="30s")
    assert cluster.condition("Ready") == ("True", "Served"), "a class without supportedFeatures is unknown"
    cluster.put_class([{"name": "HTTPRoute"}])
    cluster.settle()
    for kind in ("TrafficProgrammed", "Ready"):
        assert cluster.condition(kind) == ("False", "TimeoutNotSupported")
    assert cluster.condition("Stalled") == ("True", "TimeoutNotSupported")
    assert "traffic.timeout is 30s, and Gateway infra/public does not support it" in read_message(cluster)
    assert "GatewayClass envoy does not list HTTPRouteRequestTimeout" in read_message(cluster)
    rules = cluster.objects[Ref(HTTP_ROUTE, KEY.name)]["spec"]["rules"]
    assert rules[0]["timeouts"] == {"request": "30s"}

    new = change(cluster)
    start_revision(cluster, new)
    assert read_weights(cluster) == {stable: 50, new: 50}
    assert cluster.status.rollout is not None
    assert cluster.status.rollout.reason == "Paused"
    assert cluster.condition("TrafficProgrammed") == ("False", "TimeoutNotSupported")
    cluster.now += 300
    cluster.settle()
    start_revision(cluster, new)
    assert cluster.status.stable == new
    assert cluster.condition("RolloutComplete") == ("True", "Complete")
    assert Ref(DEPLOYMENT, stable) not in cluster.objects

    cluster.put_class(["HTTPRoute", TIMEOUTS["name"]])
    cluster.settle()
    assert cluster.condition("Ready") == ("True", "Served")


def test_a_step_that_the_gateway_has_not_taken_up_waits_for_the_gateway_not_for_the_timeout() -> None:
    cluster, _ = start_service(timeout="30s")
    cluster.put_class([{"name": "HTTPRoute"}])
    new = change(cluster)
    cluster.start_pods(new)
    cluster.settle()
    assert cluster.status.rollout is not None
    assert cluster.status.rollout.reason == "GatewayPending"
    assert cluster.condition("TrafficProgrammed") == ("False", "TimeoutNotSupported"), (
        "the condition does not change meanwhile"
    )


def test_a_service_without_a_timeout_requires_no_feature_of_the_gateway() -> None:
    cluster, _ = start_service()
    cluster.put_class([{"name": "HTTPRoute"}])
    cluster.settle()
    assert cluster.condition("Ready") == ("True", "Served")


def test_an_operator_without_gateways_reads_only_the_status_of_the_route() -> None:
    cluster, stable = start_service(timeout="30s")
    cluster.put_class([{"name": "HTTPRoute"}])
    cluster.remove_all(GATEWAY)
    snapshot = observe(cluster.store, KEY, cluster.now)
    assert isinstance(snapshot, Snapshot)
    assert snapshot.gateways is None
    shares = {stable: 100}
    assert decide(snapshot).main.traffic == ObservedTraffic(shares, shares, frozenset(shares))


def test_a_stale_condition_of_another_controller_holds_no_rollout() -> None:
    cluster, stable = start_service()
    ref = Ref(HTTP_ROUTE, KEY.name)
    route = copy.deepcopy(cluster.objects[ref])
    parent = route["status"]["parents"][0]
    stale = [
        {**condition, "status": "False", "reason": "NoMatchingParent", "observedGeneration": 1}
        for condition in parent["conditions"]
    ]
    former = {**parent, "controllerName": "former.example.com/controller", "conditions": stale}
    route["status"]["parents"] = [former, parent]
    cluster.put(route)
    assert cluster.condition("Ready") == ("True", "Served")
    new = change(cluster)
    start_revision(cluster, new)
    assert len(cluster.objects[ref]["status"]["parents"]) == 2, "the stale entry stays"
    assert read_weights(cluster) == {stable: 50, new: 50}
    assert cluster.status.rollout is not None
    assert cluster.status.rollout.reason == "Paused"
    snapshot = observe(cluster.store, KEY, cluster.now)
    assert isinstance(snapshot, Snapshot)
    assert decide(snapshot).main.traffic.obstacle is None, "without Gateways, the best condition counts"


def test_the_later_of_two_services_with_one_hostname_reports_that_it_gets_no_requests() -> None:
    cluster, _ = start_service()
    assert cluster.condition("Ready") == ("True", "Served")
    other = build_manifest(traffic=TRAFFIC)
    other["metadata"] |= {"namespace": "another", "uid": "another-service"}
    cluster.store.put({**other, "metadata": {**other["metadata"], "resourceVersion": "1"}})
    route = copy.deepcopy(cluster.objects[Ref(HTTP_ROUTE, KEY.name)])
    route["metadata"] |= {"namespace": "another", "uid": "another-route", "creationTimestamp": "1970-01-01T00:00:00Z"}
    refused = copy.deepcopy(route)
    for condition in refused["status"]["parents"][0]["conditions"]:
        condition["status"] = "False"
    cluster.store.put(refused)
    cluster.settle()
    assert cluster.condition("Ready") == ("True", "Served"), "a route that the Gateway refuses takes no request"
    route["metadata"]["resourceVersion"] = "999999"
    cluster.store.put(route)
    cluster.settle()
    for kind in ("TrafficProgrammed", "Ready"):
        assert cluster.condition(kind) == ("False", "HostnameTaken")
    assert "InferenceService another/magika has an older route for the hostname magika.example.com" in read_message(
        cluster
    )
    assert cluster.condition("Serving")[0] == "True", "requests in the cluster are answered"
    new = change(cluster)
    start_revision(cluster, new)
    assert cluster.status.rollout is not None
    assert cluster.status.rollout.reason == "Paused", "a rollout is not held up"
    cluster.store.hostnames.take_affected()

    cluster.store.discard({**route, "metadata": {**route["metadata"], "resourceVersion": "1000000"}})
    assert cluster.store.hostnames.take_affected() == {KEY}
    cluster.settle()
    assert cluster.condition("TrafficProgrammed") == ("True", "Programmed")


def test_namespace_and_name_decide_between_two_routes_of_one_second() -> None:
    cluster, _ = start_service()
    for namespace in ("demo-b", "demo0"):  # before and after demo/magika, for "-" comes before "/", and "0" behind it
        other = build_manifest(traffic=TRAFFIC)
        other["metadata"] |= {"namespace": namespace, "uid": f"{namespace}-service"}
        route = copy.deepcopy(cluster.objects[Ref(HTTP_ROUTE, KEY.name)])
        route["metadata"] |= {"namespace": namespace, "uid": f"{namespace}-route"}
        for body in (other, route):
            cluster.store.put(body)
    conflict = cluster.snapshot().hostname_conflict
    assert conflict is not None
    assert conflict[0] == ServiceKey("demo-b", "magika")


def test_a_change_of_a_service_concerns_only_those_with_its_hostname_and_a_younger_route() -> None:
    """An event of one of thousands of services with one hostname wakes no others."""
    cluster, _ = start_service()
    accepted = cluster.objects[Ref(HTTP_ROUTE, KEY.name)]
    store, count = Store(), 2000

    def put(number: int, version: int, *, created: int, label: str = "") -> None:
        meta = {"namespace": "demo", "name": f"m{number}", "resourceVersion": str(version)}
        service = build_manifest(traffic=TRAFFIC)
        service["metadata"] |= {**meta, "uid": f"service-{number}", "labels": {"label": label}}
        owner = {"apiVersion": service["apiVersion"], "kind": service["kind"], "name": f"m{number}"}
        age = {"creationTimestamp": f"2026-01-01T{created // 3600:02}:{created // 60 % 60:02}:{created % 60:02}Z"}
        body = copy.deepcopy(accepted)
        body["metadata"] = {
            **meta,
            **age,
            "uid": f"route-{number}",
            "ownerReferences": [{**owner, "uid": f"service-{number}", "controller": True}],
        }
        store.put(service)
        store.put(body)

    for number in range(count):
        put(number, 1, created=number + 1)
        assert not store.hostnames.take_affected(), "the youngest route takes no requests of another"
    put(0, 2, created=1, label="changed")
    assert not store.hostnames.take_affected(), "its route is the same"
    put(count, 1, created=0)
    assert len(store.hostnames.take_affected()) == count, "the oldest route gets the requests of all others"
    conflict = store.hostnames.conflict(ServiceKey("demo", "m5"))
    assert conflict is not None
    assert conflict[0] == ServiceKey("demo", f"m{count}")


@pytest.mark.parametrize(
    ("gateway", "hostname"),
    [
        ({"name": "private", "namespace": "infra"}, "magika.example.com"),
        ({"name": "public", "namespace": "infra"}, "other.example.com"),
    ],
)
def test_services_that_a_gateway_distinguishes_share_no_hostname(gateway: dict[str, str], hostname: str) -> None:
    cluster, _ = start_service()
    other = build_manifest(traffic={"gateways": [gateway], "hostnames": [hostname]})
    other["metadata"] |= {"namespace": "another", "uid": "another-service", "resourceVersion": "1"}
    cluster.store.put(other)
    route = copy.deepcopy(cluster.objects[Ref(HTTP_ROUTE, KEY.name)])
    route["metadata"] |= {"namespace": "another", "uid": "another-route", "creationTimestamp": "1970-01-01T00:00:00Z"}
    route["spec"]["hostnames"] = [hostname]
    for parent in (*route["spec"]["parentRefs"], *(each["parentRef"] for each in route["status"]["parents"])):
        parent.update(gateway)
    cluster.store.put(route)
    assert cluster.snapshot().hostname_conflict is None


def test_requests_with_one_header_are_kept_together_by_a_policy_of_envoy_gateway() -> None:
    cluster, stable = start_service(consistentHash={"header": "x-sequence"})
    for kind in ("TrafficProgrammed", "Ready"):
        assert cluster.condition(kind) == ("False", "ConsistentHashNotSupported")
    assert POLICY not in cluster.objects, "no Gateway would read it"
    assert (
        "Gateway infra/public is not of Envoy Gateway: its controller is envoy.example.com/controller"
        in read_message(cluster)
    )

    cluster.controller = ENVOY_GATEWAY
    cluster.put_class()
    cluster.settle()
    cluster.accept_routes()
    cluster.settle()
    assert cluster.condition("Ready") == ("True", "Served")
    spec = cluster.objects[POLICY]["spec"]
    assert spec["targetRefs"] == [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": KEY.name}]
    assert spec["loadBalancer"]["consistentHash"] == {"type": "Header", "header": {"name": "x-sequence"}}

    put_policy_status(cluster, "False", generations_ago=1)
    assert cluster.condition("Ready") == ("True", "Served"), "the condition is of another generation"
    put_policy_status(cluster, "False", controller="example.com/another")
    assert cluster.condition("Ready") == ("True", "Served"), "the condition is of another controller"
    assert cluster.snapshot().removed_tracks == (), "its name is not that of a variant"
    put_policy_status(cluster, "False")
    assert cluster.condition("Ready") == ("False", "PolicyRefused")
    assert "Conflicted: another policy is older" in read_message(cluster)
    assert POLICY in cluster.objects, "the policy is written when the other one is gone"

    cluster.edit_traffic(TRAFFIC)
    cluster.settle()
    cluster.accept_routes()
    cluster.settle()
    assert POLICY not in cluster.objects
    assert cluster.condition("Ready") == ("True", "Served")
    assert read_weights(cluster) == {stable: 100}


def put_policy_status(
    cluster: Cluster, status: str, *, generations_ago: int = 0, controller: str = ENVOY_GATEWAY
) -> None:
    body = copy.deepcopy(cluster.objects[POLICY])
    generation = body["metadata"]["generation"] - generations_ago
    condition = {"type": "Accepted", "status": status, "reason": "Conflicted", "message": "another policy is older"}
    answer = {"controllerName": controller, "conditions": [{**condition, "observedGeneration": generation}]}
    body["status"] = {"ancestors": [answer]}
    cluster.put(body)
    cluster.settle()


def test_a_service_with_min_replicas_0_configures_envoy_gateway_to_answer_503_until_a_pod_is_ready() -> None:
    fields: dict[str, Any] = {"autoscaling": {"triggers": [{"type": "cron"}]}, "minReplicas": 0, "maxReplicas": 2}
    cluster = Cluster(build_manifest(traffic=TRAFFIC, **fields))
    cluster.reconcile()
    assert POLICY not in cluster.objects, "another gateway would not read it"
    cluster.controller = ENVOY_GATEWAY
    cluster.put_class()
    start_revision(cluster, cluster.decision().wanted)
    assert cluster.objects[POLICY]["spec"]["healthCheck"] == {"panicThreshold": 0}
    assert "loadBalancer" not in cluster.objects[POLICY]["spec"]
    put_policy_status(cluster, "False")
    assert cluster.condition("TrafficProgrammed")[0] == "True", "the spec does not require it"
    cluster.edit(minReplicas=1)
    cluster.settle()
    assert POLICY not in cluster.objects


def test_the_policy_of_a_service_with_min_replicas_0_stays_while_the_gateway_is_unknown() -> None:
    fields: dict[str, Any] = {"autoscaling": {"triggers": [{"type": "cron"}]}, "minReplicas": 0, "maxReplicas": 2}
    cluster = Cluster(build_manifest(traffic=TRAFFIC, **fields))
    cluster.controller = ENVOY_GATEWAY
    cluster.put_class()
    cluster.reconcile()
    start_revision(cluster, cluster.decision().wanted)
    policy = cluster.objects[POLICY]["metadata"]["uid"]
    for kind in (GATEWAY, GATEWAY_CLASS):
        cluster.remove_all(kind)
        cluster.settle()
        assert cluster.objects[POLICY]["metadata"]["uid"] == policy, "a new policy would be younger than any other"


def test_an_operator_without_gateways_reads_support_for_consistent_hash_from_the_controller_of_the_route() -> None:
    cluster, _ = start_service(consistentHash={"header": "x-sequence"})
    snapshot = observe(cluster.store, KEY, cluster.now)
    assert isinstance(snapshot, Snapshot)
    assert snapshot.gateways is None
    traffic = snapshot.service.spec.traffic
    assert traffic is not None
    found = find_unsupported_hash(snapshot, traffic)
    assert found is not None
    assert "its controller is envoy.example.com/controller" in found.message


def test_a_rejected_policy_that_the_spec_does_not_require_hinders_nothing() -> None:
    rejection = ApplyRejected(POLICY, "NameTaken", "it belongs to another owner")
    plain = InferenceService.parse(build_manifest(traffic=TRAFFIC))
    isvc = InferenceService.parse(build_manifest(traffic={**TRAFFIC, "consistentHash": {"header": "x-sequence"}}))
    assert find_unwritten(plain, [rejection], {}) == {}
    assert find_unwritten(isvc, [rejection], {})[""].reason == "NameTaken"
