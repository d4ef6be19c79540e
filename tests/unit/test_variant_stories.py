"""Stories of variants in the pure packages: A/B by weight and by header, shadows, and rollouts beside each other."""

from typing import Any

import pytest

from conch.api import InferenceService, Status
from conch.api.kinds import (
    CONTROLLER_REVISION,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    HTTP_ROUTE,
    INFERENCE_SERVICE,
    SERVICE,
    Ref,
)
from conch.api.kinds import GATEWAY as GATEWAY_KIND
from conch.api.names import ANNOTATION_ACCEPTED
from conch.api.variants import MAX_VARIANTS
from conch.decide import build_measurement_request, decide
from conch.observe.gateways import GatewayKey
from conch.observe.measured import History, Measured, Totals
from conch.traffic import TrackRoute
from conch.traffic.route import http_route, matches
from conch.traffic.shared import SETTLE_SECONDS
from conch.traffic.slots import INACTIVE_HEADER, active_slots
from conch_contract import ModelState, names
from tests.unit.simulation import KEY, Cluster, build_manifest, build_report, list_backends, read_weights

GATEWAY = {"gateways": [{"name": "public", "namespace": "infra"}], "hostnames": ["magika.example.com"]}
INT8 = {"model": {"storageUri": "s3://models/int8"}}
WEIGHTED = {"name": "int8", "weight": 20, "predictor": INT8}
MATCHED = {
    "name": "beta",
    "match": [{"headers": [{"name": "x-variant", "value": "beta"}]}],
    "predictor": {"model": {"storageUri": "s3://models/beta"}},
}
OTHER_MATCH = [{"headers": [{"name": "x-variant", "value": "gamma"}]}]
MIRRORED = {"name": "shadow", "mirror": "25%", "predictor": {"model": {"storageUri": "s3://models/shadow"}}}


def start_service_with_variants(*variants: dict[str, Any], traffic: Any = GATEWAY, **rollout: Any) -> Cluster:
    """Start a service, before any of its variants has pods."""
    body = build_manifest(minReplicas=2, rollout=rollout, traffic=traffic)
    body["spec"]["variants"] = list(variants)
    cluster = Cluster(body)
    cluster.reconcile()
    cluster.start_pods(cluster.decision().wanted)
    accept_routes(cluster)
    return cluster


def accept_routes(cluster: Cluster) -> None:
    """Accept and apply the route until nothing is written."""
    for _ in range(10):
        cluster.settle()
        if Ref(HTTP_ROUTE, KEY.name) in cluster.objects:
            cluster.accept_routes()
        moved = cluster.settle()
        if (wait := decide(cluster.snapshot()).route_wait) is not None:
            cluster.now += wait
        elif not moved:
            return
    raise AssertionError("it does not come to rest")


def start_variant(cluster: Cluster, variant: str = "") -> str:
    """Start the wanted pods of a variant until they serve; return the revision."""
    accept_routes(cluster)
    for _ in range(5):
        revision = cluster.decision(variant).wanted
        cluster.start_pods(revision)
        accept_routes(cluster)
    return revision


def edit_variant(cluster: Cluster, **fields: Any) -> None:
    """Change the first variant; a part of a predictor is merged into its own."""
    first, *others = cluster.objects[Ref(INFERENCE_SERVICE, KEY.name)]["spec"]["variants"]
    cluster.edit_variants({**first, **fields}, *others)
    cluster.settle()


def remove_variants(cluster: Cluster) -> None:
    """Remove all variants from the spec."""
    cluster.edit_variants()
    cluster.settle()


def read_rules(cluster: Cluster) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cluster.objects[Ref(HTTP_ROUTE, KEY.name)]["spec"]["rules"]
    return found


def list_routed_revisions(cluster: Cluster) -> set[str]:
    """Return the backends of all rules of the route."""
    return set(list_backends(cluster.objects[Ref(HTTP_ROUTE, KEY.name)]))


def list_headers(cluster: Cluster) -> list[str]:
    """The values of the headers that variants' rules match; for an inactive rule, the name of its header."""
    found = [
        {header["name"]: header["value"] for m in rule["matches"] for header in m["headers"]}
        for rule in read_rules(cluster)[2:]
    ]
    return [name if name == INACTIVE_HEADER else value for each in found for name, value in each.items()]


def list_kinds(cluster: Cluster, variant: str) -> set[str]:
    """The kinds of the objects that a variant has."""
    return {
        ref.kind.name
        for ref, body in cluster.objects.items()
        if body["metadata"].get("labels", {}).get(names.LABEL_VARIANT) == variant
    }


def test_a_weighted_variant_gets_its_share_when_it_can_answer_and_not_before() -> None:
    cluster = start_service_with_variants(WEIGHTED)
    stable = cluster.decision().wanted
    assert read_weights(cluster) == {stable: 100}
    assert cluster.condition("Ready") == ("Unknown", "Progressing")
    assert cluster.condition("Serving") == ("True", "Answering")
    int8 = start_variant(cluster, "int8")
    assert int8.startswith("magika-int8-")
    assert read_weights(cluster) == {stable: 80, int8: 20}
    assert cluster.condition("Ready") == ("True", "Served")
    [variant] = cluster.status.variants
    assert (variant.name, variant.stable, variant.ready) == ("int8", int8, "2/2")
    assert variant.url == "http://magika-int8.demo.svc:8000"
    assert cluster.status.ready == "4/4"
    assert {r.name: r.variant for r in cluster.status.revisions} == {stable: None, int8: "int8"}


def test_a_weighted_variant_without_ready_pods_gives_its_share_to_the_predictor_until_one_is_ready() -> None:
    cluster = start_service_with_variants(WEIGHTED)
    stable, int8 = cluster.decision().wanted, start_variant(cluster, "int8")
    for index in range(2):
        assert read_weights(cluster) == {stable: 80, int8: 20}, "one pod is enough"
        cluster.put_pod(int8, index, ready=False)
        cluster.settle()
    cluster.accept_routes()
    cluster.settle()
    assert read_weights(cluster) == {stable: 100}
    assert cluster.condition("Ready") == ("Unknown", "Progressing")
    [variant] = cluster.status.variants
    conditions = {each.type: (each.status, each.reason, each.message) for each in variant.conditions}
    assert conditions["Serving"][:2] == ("False", "NoReadyPods")
    assert conditions["TrafficProgrammed"] == (
        "False",
        "NoReadyPods",
        "No pod of the variant is ready; its share goes to the predictor until one is.",
    )
    assert Ref(DEPLOYMENT, int8) in cluster.objects
    cluster.put_pod(int8, 1, ready=True)
    cluster.settle()
    assert read_weights(cluster) == {stable: 80, int8: 20}


def test_a_weighted_variant_keeps_its_share_when_the_predictor_has_no_ready_pods_either() -> None:
    cluster = start_service_with_variants(WEIGHTED)
    stable, int8 = cluster.decision().wanted, start_variant(cluster, "int8")
    for revision in (stable, int8):
        for index in range(2):
            cluster.put_pod(revision, index, ready=False)
    cluster.settle()
    assert read_weights(cluster) == {stable: 80, int8: 20}


def test_a_request_for_an_unknown_variant_is_refused_with_the_names_of_the_variants() -> None:
    cluster = start_service_with_variants(WEIGHTED)
    start_variant(cluster, "int8")
    generation = cluster.objects[Ref(INFERENCE_SERVICE, KEY.name)]["metadata"]["generation"]
    cluster.request(f"promote {generation - 1}", "gone")  # a leftover of an earlier change
    cluster.settle()
    assert cluster.status.request is None
    cluster.request(f"promote {generation}", "int4")
    cluster.settle()
    answer = cluster.status.request
    assert answer is not None
    assert (answer.state, answer.text) == ("Refused", f"promote {generation}")
    assert answer.message == (
        "The annotation conch.dev/rollout.int4 is for the variant 'int4', which is not there: the variants are int8"
    )
    assert cluster.story[-1].reason == "RequestRefused"
    cluster.request("", "int4")
    cluster.settle()
    assert cluster.status.request is None


def test_a_variant_has_its_own_objects_and_the_model_keeps_its_name() -> None:
    cluster = start_service_with_variants(WEIGHTED)
    int8 = start_variant(cluster, "int8")
    root = cluster.objects[Ref(SERVICE, "magika-int8")]
    assert root["spec"]["selector"] == {names.LABEL_SERVICE: "magika", names.LABEL_REVISION: int8}
    budget = cluster.objects[Ref(DISRUPTION_BUDGET, int8)]["spec"]["selector"]["matchLabels"]
    assert budget == {names.LABEL_SERVICE: "magika", names.LABEL_WORKLOAD: int8}
    record = cluster.objects[Ref(CONTROLLER_REVISION, int8)]
    assert '"name":"magika"' in record["data"]["manifest"].replace(" ", ""), "clients request one model"
    assert "s3://models/int8" in record["data"]["manifest"]
    assert record["data"]["template"]["metadata"]["labels"][names.LABEL_VARIANT] == "int8"
    stable = cluster.decision().wanted
    assert names.LABEL_VARIANT not in cluster.objects[Ref(DEPLOYMENT, stable)]["spec"]["template"]["metadata"]["labels"]


def test_a_header_reaches_its_variant_over_both_protocols() -> None:
    cluster = start_service_with_variants(MATCHED)
    before = read_rules(cluster)
    assert len(before) == 2, "the predictor has the requests until the variant is ready"
    beta = start_variant(cluster, "beta")
    assert read_rules(cluster)[:2] == before, "a rule that moves gets another's pods for a moment (Envoy Gateway)"
    http, grpc = read_rules(cluster)[2:]
    assert [match["path"]["value"] for match in http["matches"]] == ["/v2/models", "/v2/health"]
    for rule, port in ((http, 8000), (grpc, 8001)):
        assert all(m["headers"] == [{"type": "Exact", "name": "x-variant", "value": "beta"}] for m in rule["matches"])
        assert [(b["name"], b["port"], b["weight"]) for b in rule["backendRefs"]] == [(beta, port, 100)]
    assert read_weights(cluster) == {cluster.decision().wanted: 100}


def test_a_new_rule_is_inactive_until_the_gateway_has_surely_applied_it() -> None:
    """Envoy Gateway may apply a rule before its backends: a request that met it would get 503."""
    cluster = start_service_with_variants(MATCHED)
    beta = cluster.decision("beta").wanted
    cluster.start_pods(beta)
    cluster.settle()
    assert list_headers(cluster) == [INACTIVE_HEADER] * 2
    assert list_routed_revisions(cluster) == {cluster.decision().wanted, beta}
    inactive = read_rules(cluster)
    cluster.now += 60
    assert cluster.settle() == 0, "the gateway has not accepted it"
    cluster.accept_routes()
    cluster.settle()
    assert list_headers(cluster) == [INACTIVE_HEADER] * 2
    assert cluster.condition("TrafficProgrammed") == ("Unknown", "Pending")
    assert cluster.condition("Serving") == ("True", "Answering")
    assert cluster.status.variants[0].stable == beta
    wait = decide(cluster.snapshot()).wait
    assert wait is not None
    assert SETTLE_SECONDS <= wait < SETTLE_SECONDS + 1
    cluster.now += wait - 1
    assert cluster.settle() == 0
    cluster.now += 1
    cluster.settle()
    assert list_headers(cluster) == ["beta"] * 2
    for before, after in zip(inactive, read_rules(cluster), strict=True):
        assert {**before, "matches": after["matches"]} == after, "its match alone has changed"
    assert ANNOTATION_ACCEPTED not in cluster.objects[Ref(HTTP_ROUTE, KEY.name)]["metadata"]["annotations"]
    cluster.accept_routes()
    cluster.settle()
    assert cluster.condition("Ready") == ("True", "Served")
    assert decide(cluster.snapshot()).wait is None


def test_a_change_of_the_route_restarts_the_wait() -> None:
    cluster = start_service_with_variants({**WEIGHTED, "predictor": {}}, MATCHED)
    cluster.start_pods(cluster.decision("beta").wanted)
    cluster.settle()
    cluster.accept_routes()
    cluster.settle()
    cluster.now += SETTLE_SECONDS - 1
    edit_variant(cluster, weight=30)
    cluster.start_pods(cluster.decision("int8").wanted)
    cluster.settle()
    assert len(read_weights(cluster)) == 2
    cluster.now += 60
    cluster.settle()
    cluster.accept_routes()
    cluster.settle()
    assert list_headers(cluster) == [INACTIVE_HEADER] * 2
    accept_routes(cluster)
    assert list_headers(cluster) == ["beta"] * 2


def test_a_gateway_that_goes_away_restarts_the_wait() -> None:
    cluster = start_service_with_variants(MATCHED)
    cluster.start_pods(cluster.decision("beta").wanted)
    cluster.settle()
    cluster.accept_routes()
    cluster.settle()
    cluster.remove_all(GATEWAY_KIND)
    cluster.now += 60
    cluster.settle()
    cluster.put_gateway(GatewayKey("infra", "public"))
    cluster.settle()
    assert list_headers(cluster) == [INACTIVE_HEADER] * 2
    accept_routes(cluster)
    assert list_headers(cluster) == ["beta"] * 2


def test_a_removed_rule_is_first_inactive_and_leads_to_the_predictor() -> None:
    cluster = start_service_with_variants(MATCHED, {**MATCHED, "name": "gamma", "match": OTHER_MATCH})
    stable, beta, gamma = cluster.decision().wanted, start_variant(cluster, "beta"), start_variant(cluster, "gamma")
    assert list_headers(cluster) == ["beta", "beta", "gamma", "gamma"]
    before = read_rules(cluster)
    _, second = cluster.objects[Ref(INFERENCE_SERVICE, KEY.name)]["spec"]["variants"]
    cluster.edit_variants(second)
    cluster.settle()
    assert list_headers(cluster) == [INACTIVE_HEADER, INACTIVE_HEADER, "gamma", "gamma"]
    assert [rule["backendRefs"] for rule in read_rules(cluster)[2:4]] == [
        rule["backendRefs"] for rule in read_rules(cluster)[:2]
    ]
    assert read_rules(cluster)[4:] == before[4:], "a rule that moves gets the pods of another for a moment"
    assert Ref(DEPLOYMENT, beta) in cluster.objects
    accept_routes(cluster)
    assert Ref(DEPLOYMENT, beta) not in cluster.objects
    assert list_routed_revisions(cluster) == {stable, gamma}
    assert cluster.condition("Ready") == ("True", "Served")
    remove_variants(cluster)
    assert list_headers(cluster) == [INACTIVE_HEADER] * 4
    cluster.accept_routes()
    cluster.settle()
    assert len(read_rules(cluster)) == 6
    assert cluster.condition("Ready") == ("True", "Served"), "the service is as the spec requires"
    accept_routes(cluster)
    assert len(read_rules(cluster)) == 2


def test_a_candidate_waits_with_the_rule_of_its_variant() -> None:
    cluster = start_service_with_variants(MATCHED, steps=[{"weight": 50}, {"pause": "1m"}])
    old = cluster.decision("beta").wanted
    cluster.start_pods(old)
    cluster.settle()
    edit_variant(cluster, predictor={"model": {"storageUri": "s3://models/beta-2"}})
    new = cluster.decision("beta").wanted
    assert new != old
    cluster.start_pods(new)
    cluster.settle()
    cluster.accept_routes()
    cluster.settle()
    rollout = cluster.status.variants[0].rollout
    assert rollout is not None
    assert (rollout.step, rollout.reason, rollout.observed_weight) == (0, "GatewayPending", 0)
    assert list_headers(cluster) == [INACTIVE_HEADER] * 2
    accept_routes(cluster)
    assert list_headers(cluster) == ["beta"] * 2
    rollout = cluster.status.variants[0].rollout
    assert rollout is not None
    assert (rollout.step, rollout.reason, rollout.observed_weight) == (1, "Paused", 50)


def test_a_recreated_route_has_all_rules_at_once() -> None:
    """No request is in flight through a route that does not exist."""
    cluster = start_service_with_variants(MATCHED)
    start_variant(cluster, "beta")
    before = read_rules(cluster)
    cluster.remove(Ref(HTTP_ROUTE, KEY.name))
    cluster.settle()
    assert read_rules(cluster) == before


def test_a_shadow_gets_copies_and_no_share() -> None:
    cluster = start_service_with_variants(MIRRORED)
    assert all("filters" not in rule for rule in read_rules(cluster))
    shadow = start_variant(cluster, "shadow")
    assert read_weights(cluster) == {cluster.decision().wanted: 100}
    for rule, port in zip(read_rules(cluster), (8000, 8001), strict=True):
        [mirror] = rule["filters"]
        assert mirror == {
            "type": "RequestMirror",
            "requestMirror": {
                "backendRef": {"group": "", "kind": "Service", "name": shadow, "port": port},
                "fraction": {"numerator": 1, "denominator": 4},
            },
        }
    edit_variant(cluster, predictor={"model": {"storageUri": "s3://models/shadow-2"}})
    after = start_variant(cluster, "shadow")
    assert after != shadow
    assert read_rules(cluster)[0]["filters"][0]["requestMirror"]["backendRef"]["name"] == after
    assert Ref(DEPLOYMENT, shadow) not in cluster.objects


@pytest.mark.parametrize("order", [("", "int8"), ("int8", "")])
def test_predictor_and_variant_roll_out_beside_each_other(order: tuple[str, str]) -> None:
    """Shares are those within each: 5 % of the variant's 20 %, and 5 % of the predictor's 80 %."""
    cluster = start_service_with_variants(WEIGHTED, steps=[{"weight": 5}, {"pause": "Manual"}])
    old = {"": cluster.decision().wanted, "int8": start_variant(cluster, "int8")}
    new: dict[str, str] = {}
    for variant in order:
        if variant:
            edit_variant(cluster, predictor={"model": {"storageUri": "s3://models/int8-v2"}})
        else:
            cluster.edit(uri="s3://models/v2")
        new[variant] = start_variant(cluster, variant)
    assert read_weights(cluster) == {old[""]: 76, new[""]: 4, old["int8"]: 19, new["int8"]: 1}
    generation = cluster.snapshot().service.metadata.generation
    cluster.request(f"promote {generation}", "int8")
    start_variant(cluster, "int8")
    assert read_weights(cluster) == {old[""]: 76, new[""]: 4, new["int8"]: 20}
    assert cluster.status.candidate == new[""]
    cluster.request(f"abort {generation}")
    accept_routes(cluster)
    assert read_weights(cluster) == {old[""]: 80, new["int8"]: 20}
    assert cluster.status.rollout is not None
    assert cluster.status.rollout.reason == "Aborted"
    assert Status.lenient(cluster.status.to_wire()) == cluster.status


def test_small_shares_are_exact() -> None:
    cluster = start_service_with_variants({**WEIGHTED, "weight": 3}, steps=[{"weight": 5}, {"pause": "Manual"}])
    stable, old = cluster.decision().wanted, start_variant(cluster, "int8")
    edit_variant(cluster, predictor={"model": {"storageUri": "s3://models/int8-v2"}})
    new = start_variant(cluster, "int8")
    assert read_weights(cluster) == {stable: 9700, old: 285, new: 15}
    assert cluster.status.variants[0].weight == 5


def test_a_shadow_waits_for_a_gateway_that_can_copy() -> None:
    """Traefik accepts a mirror and answers 500 to every request of the rule: it must never get one."""
    cluster = start_service_with_variants(MIRRORED)
    cluster.put_class([{"name": "HTTPRoute"}])
    start_variant(cluster, "shadow")
    assert all("filters" not in rule for rule in read_rules(cluster))
    for kind in ("TrafficProgrammed", "Ready"):
        assert cluster.condition(kind) == ("False", "MirrorNotSupported")
    ready = cluster.status.condition("Ready")
    assert ready is not None
    assert ready.message.startswith("Variant shadow: The mirror is 25%, and Gateway infra/public does not support it")
    assert cluster.condition("Serving") == ("True", "Answering")
    cluster.put_class([{"name": "HTTPRouteRequestMirror"}])
    accept_routes(cluster)
    assert "set mirror to 100%" in cluster.status.variants[0].conditions[0].message
    cluster.put_class([{"name": "HTTPRouteRequestMirror"}, {"name": "HTTPRouteRequestPercentageMirror"}])
    accept_routes(cluster)
    assert all("filters" in rule for rule in read_rules(cluster))
    assert cluster.condition("Ready") == ("True", "Served")
    assert not build_measurement_request(cluster.snapshot()).models, (
        "the gateway reports what it can do, so there is nothing to find out"
    )


def test_counters_show_whether_copies_arrive_when_a_gateway_lists_no_features() -> None:
    cluster = start_service_with_variants(MIRRORED)
    stable, shadow = cluster.decision().wanted, start_variant(cluster, "shadow")
    assert set(build_measurement_request(cluster.snapshot()).models) == {stable, shadow}
    assert cluster.condition("Ready") == ("True", "Served"), "there was no request yet"

    def count(requests: int, copies: int) -> None:
        cluster.now += 10
        for revision, number in ((stable, requests), (shadow, copies)):
            history = counted[revision] = counted[revision].with_totals(Totals(cluster.now, requests=number))
            cluster.measured_of[revision] = Measured(history)
        cluster.settle()

    counted = dict.fromkeys((stable, shadow), History().with_totals(Totals(cluster.now)))
    count(79, 0)
    assert cluster.status.variants[0].mirror is None
    count(80, 0)
    assert cluster.status.variants[0].mirror == "Missing"
    assert cluster.condition("TrafficProgrammed") == ("Unknown", "MirrorNotArriving")
    assert cluster.condition("Ready") == ("True", "Served"), (
        "the requests may have reached the Service without the gateway"
    )
    assert cluster.condition("Stalled") == ("", "")
    count(90, 1)
    assert cluster.status.variants[0].mirror == "Arriving"
    assert cluster.condition("Ready") == ("True", "Served")
    assert not build_measurement_request(cluster.snapshot()).models, "the result is known"
    cluster.measured_of.clear()
    edit_variant(cluster, mirror="50%")
    assert set(build_measurement_request(cluster.snapshot()).models) == {stable, shadow}, (
        "another spec needs another measurement"
    )


@pytest.mark.parametrize("way", ["weight", "match", "mirror"])
def test_the_most_variants_fit_into_one_route(way: str) -> None:
    """The Gateway API takes 16 rules, 64 matches in each and 127 in all, 16 backends and 16 filters."""
    fields: dict[str, Any] = {"weight": 10, "mirror": "50%"}
    body = build_manifest(traffic=GATEWAY)
    body["spec"]["variants"] = []
    for number in range(MAX_VARIANTS):
        fields["match"] = [{"headers": [{"name": "x", "value": f"{number}{place}"}]} for place in range(4)]
        body["spec"]["variants"].append({"name": f"v{number}", way: fields[way]})
    isvc = InferenceService.parse(body)
    assert isvc.spec.traffic is not None
    tracks = [isvc.of_variant(name) for name in ("", *(variant.name for variant in isvc.spec.variants))]
    ways = [TrackRoute(track, f"{track.track}-a", {f"{track.track}-a": 50, f"{track.track}-b": 50}) for track in tracks]
    found = http_route(isvc, isvc.spec.traffic, ways, active_slots(matches(ways)))["spec"]["rules"]
    assert len(found) == (16 if way == "match" else 2)
    assert sum(len(rule["matches"]) for rule in found) < 128
    for rule in found:
        assert len(rule["backendRefs"]) == (16 if way == "weight" else 2)
        assert len(rule["matches"]) <= 64
        assert len(rule.get("filters", [])) in {0, MAX_VARIANTS}


def test_a_variant_that_is_dropped_keeps_its_pods_until_no_request_can_come() -> None:
    cluster = start_service_with_variants(WEIGHTED, MATCHED)
    stable = cluster.decision().wanted
    revisions = {name: start_variant(cluster, name) for name in ("int8", "beta")}
    remove_variants(cluster)
    assert read_weights(cluster) == {stable: 100}
    assert list_routed_revisions(cluster) == {stable}
    for revision in revisions.values():
        assert Ref(DEPLOYMENT, revision) in cluster.objects, "the gateway has not applied the route yet"
        assert Ref(SERVICE, revision) in cluster.objects
    accept_routes(cluster)
    cluster.settle()
    for name in revisions:
        assert list_kinds(cluster, name) <= {"Pod", "EndpointSlice"}
    assert cluster.status.variants == ()
    assert cluster.condition("Ready") == ("True", "Served")


def test_a_variant_that_leaves_the_route_and_changes_keeps_the_pods_that_the_gateway_reaches() -> None:
    cluster = start_service_with_variants(WEIGHTED)
    int8 = start_variant(cluster, "int8")
    remove_variants(cluster)
    cluster.edit_variants({"name": "int8", "predictor": {"model": {"storageUri": "s3://models/int8-v2"}}})
    cluster.settle()
    assert Ref(DEPLOYMENT, int8) in cluster.objects, "the gateway has not applied the route without the variant"
    start_variant(cluster, "int8")
    assert Ref(DEPLOYMENT, int8) not in cluster.objects


def test_a_variant_that_cannot_start_affects_no_other_and_is_reported() -> None:
    cluster = start_service_with_variants(WEIGHTED)
    stable, int8 = cluster.decision().wanted, cluster.decision("int8").wanted
    cluster.put_pod(
        int8, 0, ready=False, report=build_report(ModelState.FAILED, reason="NotFound", message="no such bucket")
    )
    cluster.settle()
    assert read_weights(cluster) == {stable: 100}
    assert cluster.condition("Ready") == ("False", "NotFound")
    ready = cluster.status.condition("Ready")
    assert ready is not None
    assert ready.message == "Variant int8: Model magika: no such bucket"
    assert cluster.condition("Serving") == ("True", "Answering")
    edit_variant(cluster, predictor=INT8 | {"minReplicas": 1})
    assert cluster.decision("int8").wanted == int8
    edit_variant(cluster, predictor={"model": {"storageUri": "s3://models/int8-v2"}})
    mended = start_variant(cluster, "int8")
    assert read_weights(cluster) == {stable: 80, mended: 20}
    assert Ref(DEPLOYMENT, int8) not in cluster.objects
    assert cluster.condition("Ready") == ("True", "Served")


def test_a_bad_change_of_a_variant_is_rolled_back_alone() -> None:
    cluster = start_service_with_variants(WEIGHTED, steps=[{"weight": 50}])
    stable, old = cluster.decision().wanted, start_variant(cluster, "int8")
    edit_variant(cluster, predictor={"model": {"storageUri": "s3://models/int8-v2"}})
    bad = cluster.decision("int8").wanted
    cluster.put_pod(bad, 0, ready=False)
    cluster.now += 901
    accept_routes(cluster)
    assert read_weights(cluster) == {stable: 80, old: 20}
    assert Ref(DEPLOYMENT, bad) not in cluster.objects
    assert cluster.condition("RolloutComplete") == ("True", "Complete")
    assert cluster.condition("Stalled") == ("True", "ProgressDeadlineExceeded")
    [variant] = cluster.status.variants
    assert variant.rollout is not None
    assert (variant.rollout.phase, variant.stable) == ("Failed", old)
    assert "Variant int8: Revision" in next(event.note for event in cluster.story if event.reason == "RolledBack")


def test_a_variant_without_a_gateway_is_reached_at_its_own_service() -> None:
    cluster = start_service_with_variants({"name": "int8", "predictor": INT8}, traffic=None)
    int8 = start_variant(cluster, "int8")
    assert cluster.condition("Ready") == ("True", "Served")
    assert cluster.objects[Ref(SERVICE, "magika-int8")]["spec"]["selector"][names.LABEL_REVISION] == int8
    remove_variants(cluster)
    cluster.settle()
    assert list_kinds(cluster, "int8") <= {"Pod", "EndpointSlice"}


def test_a_route_that_is_not_accepted_yet_is_not_reported_as_accepted() -> None:
    cluster = start_service_with_variants(WEIGHTED)
    start_variant(cluster, "int8")
    assert cluster.condition("TrafficProgrammed") == ("True", "Programmed")
    edit_variant(cluster, weight=30)
    assert cluster.condition("TrafficProgrammed") == ("Unknown", "Pending")
    accept_routes(cluster)
    assert cluster.condition("TrafficProgrammed") == ("True", "Programmed")
    assert set(read_weights(cluster).values()) == {70, 30}


MERGED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("no field", {}, {}),
    ("another folder", {"model": {"storageUri": "s3://m/b"}}, {"model.storage_uri": "s3://m/b", "model.storage": True}),
    (
        "another store",
        {"model": {"storageUri": "https://h/b"}},
        {"model.storage_uri": "https://h/b", "model.storage": False},
    ),
    ("more pods", {"minReplicas": 5}, {"min_replicas": 5}),
    ("a node", {"pod": {"nodeSelector": {"gpu": "t4"}}}, {"pod.service_account_name": "models"}),
    ("other limits", {"resources": {"limits": {"cpu": 1}}}, {"resources.requests": {}}),
]


@pytest.mark.parametrize(("predictor", "expected"), [row[1:] for row in MERGED], ids=[row[0] for row in MERGED])
def test_a_variant_inherits_the_fields_of_the_predictor_that_it_does_not_set(
    predictor: dict[str, Any], expected: dict[str, Any]
) -> None:
    body = build_manifest(
        minReplicas=2,
        pod={"serviceAccountName": "models", "nodeSelector": {"gpu": "a100"}},
        resources={"requests": {"cpu": 1}},
    )
    body["spec"]["variants"] = [{"name": "b", "predictor": predictor}]
    isvc = InferenceService.parse(body)
    variant = isvc.of_variant("b")
    assert (variant.track, variant.model_name) == ("magika-b", "magika")
    for path, value in expected.items():
        found: Any = variant.spec.predictor
        for part in path.split("."):
            found = getattr(found, part)
        assert (found is not None) is value if isinstance(value, bool) else found == value, path
    same = isvc.spec.predictor.with_entry("magika")
    assert predictor or variant.spec.predictor == same
