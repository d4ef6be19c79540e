"""HTTPRoutes of another writer: which of them take requests of a service, and what is kept of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conch.api.kinds import DEPLOYMENT, HTTP_ROUTE, Ref
from conch.events.handlers import EventHandlers, build_listing
from conch.observe import Gateways, Store
from conch.observe.gateways import GatewayKey, SeenGateway
from conch.observe.routes import ForeignRoutes, Route, find_route_conflict, read_route
from conch.queue import WorkQueue
from conch_contract import names
from tests.unit.simulation import KEY, Cluster, build_manifest, read_weights, start_revision

PUBLIC: Final = GatewayKey("infra", "public")
PARENT: Final = {"namespace": "infra", "name": "public"}
NAME: Final = "magika.example.com"
TRAFFIC: Final = {"gateways": [PARENT], "hostnames": [NAME]}
OLD, SAME, NEW = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"
BETA: Final = [{"name": "X-Beta", "value": "1"}]
ACCEPTED: Final = [{"type": "Accepted", "status": "True"}]
STRANGE: Final[tuple[Any, ...]] = (None, "x", "", 7, -1, True, [], {}, [{}], ["x"], [None], {"x": "y"})


def path(value: str, kind: str = "PathPrefix", **parts: Any) -> dict[str, Any]:
    """One entry of a rule's matches."""
    return {"path": {"type": kind, "value": value}, **parts}


def body(
    *matches: dict[str, Any],
    hostnames: tuple[str, ...] = (NAME,),
    parent: dict[str, Any] = PARENT,
    created: str = OLD,
    name: str = "shop",
    version: int = 1,
    **meta: Any,
) -> dict[str, Any]:
    """An HTTPRoute that its Gateway has accepted."""
    return {
        "apiVersion": HTTP_ROUTE.api_version,
        "kind": HTTP_ROUTE.name,
        "metadata": {
            "namespace": "team-a",
            "name": name,
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "creationTimestamp": created,
            **meta,
        },
        "spec": {
            "parentRefs": [parent],
            "hostnames": list(hostnames),
            "rules": [{"matches": [match]} for match in matches],
        },
        "status": {"parents": [{"parentRef": parent, "controllerName": "a/b", "conditions": ACCEPTED}]},
    }


def build_own_route(hostnames: tuple[str, ...] = (NAME,), parent: dict[str, Any] = PARENT) -> Route:
    """The route of a service with a variant that a header selects."""
    made = body(
        *(path(each) for each in ("/v2/models", "/v2/health", "/inference.GRPCInferenceService")),
        *(path(each, headers=BETA) for each in ("/v2/models", "/v2/health", "/inference.GRPCInferenceService")),
        hostnames=hostnames,
        parent=parent,
        created=SAME,
        name="magika",
    )
    made["metadata"]["namespace"] = "demo"
    found = read_route(made)
    assert found is not None
    return found


def conflict(foreign: dict[str, Any], route: Route | None = None, ports: dict[str, int] | None = None) -> str:
    """Return why a foreign route takes requests of a service of the model `magika`; empty: it takes none."""
    known = read_route(foreign)
    gateways = {} if ports is None else {PUBLIC: SeenGateway(present=True, ports=ports)}
    found = find_route_conflict(route or build_own_route(), [known] if known else [], "magika", gateways)
    return found.precedence.name if found else ""


@pytest.mark.parametrize(
    ("match", "created", "expected"),
    [
        (path("/"), OLD, ""),
        (path("/v2"), OLD, ""),
        (path("/shop"), OLD, ""),
        (path("/v2/modelsandmore"), OLD, ""),
        (path("/v2/models"), OLD, "AGE"),
        (path("/v2/models"), NEW, ""),
        (path("/v2/models"), SAME, ""),  # demo/magika comes before team-a/shop
        (path("/v2/models/"), NEW, "PATH"),  # the same requests, and one character more
        (path("/v2/health/ready"), NEW, "PATH"),
        (path("/v2/health/ready", "Exact"), NEW, "EXACT"),
        (path("/v2/models/magika/infer", "Exact"), NEW, "EXACT"),
        (path("/v2/models/magika"), NEW, "PATH"),
        (path("/inference.GRPCInferenceService/ModelInfer", "Exact"), NEW, "EXACT"),
        (path("/v2/models/other"), OLD, ""),  # a model of another server under the same hostname
        (path("/v2/models/magika2/infer", "Exact"), OLD, ""),
        (path("/v2/models", "Exact"), OLD, ""),
        (path("/v2/models/magika.*", "RegularExpression"), OLD, ""),  # its precedence is each gateway's own
        ({}, OLD, ""),
    ],
)
def test_a_foreign_match_takes_requests_by_the_rules_of_the_gateway_api(
    match: dict[str, Any], created: str, expected: str
) -> None:
    assert conflict(body(match, created=created)) == expected


def test_a_match_that_the_service_loses_counts_among_others() -> None:
    assert conflict(body(path("/shop"), path("/v2/models/other"), path("/v2/health/ready"), created=NEW)) == "PATH"


@pytest.mark.parametrize("part", [{"method": "POST"}, {"headers": BETA}, {"queryParams": BETA}], ids=str)
def test_a_match_that_names_more_than_a_path_refines_the_services_and_is_not_kept(part: dict[str, Any]) -> None:
    refined = path("/v2/models/magika/infer", "Exact", **part)
    assert read_route(body(refined)) is None
    both = read_route(body(refined, path("/v2/health")))
    assert both is not None
    assert [match.path for match in both.matches] == ["/v2/health"]


@pytest.mark.parametrize(("namespace", "expected"), [("apps", "NAME"), ("demo-b", "NAME"), ("team-a", "")])
def test_routes_of_one_second_are_ordered_by_their_names(namespace: str, expected: str) -> None:
    foreign = body(path("/v2/models"), created=SAME)
    foreign["metadata"]["namespace"] = namespace
    assert conflict(foreign) == expected


@pytest.mark.parametrize(
    ("ours", "theirs", "meet"),
    [
        (NAME, (NAME,), True),
        (NAME, ("MAGIKA.example.com",), True),
        (NAME, ("other.example.com", NAME), True),
        (NAME, ("other.example.com",), False),
        (NAME, (), False),
        (NAME, ("*.example.com",), False),
        ("*.example.com", ("*.example.com",), True),
        ("*.example.com", ("shop.example.com",), False),  # so wildcards are used
        ("*.example.com", ("*.shop.example.com",), False),
    ],
)
def test_a_hostname_counts_for_itself_alone(ours: str, theirs: tuple[str, ...], meet: bool) -> None:
    assert bool(conflict(body(path("/v2/models"), hostnames=theirs), build_own_route((ours,)))) == meet


@pytest.mark.parametrize(
    ("ours", "theirs", "meet"),
    [
        ({}, {}, True),
        ({"sectionName": "http"}, {}, True),
        ({"sectionName": "http"}, {"sectionName": "http"}, True),
        ({"sectionName": "http"}, {"sectionName": "https"}, False),
        ({"sectionName": "http"}, {"port": 80}, True),
        ({"sectionName": "http"}, {"port": 443}, False),
        ({"sectionName": "new"}, {"port": 443}, True),
        ({}, {"port": 443}, True),
        ({}, {"name": "private"}, False),
        ({}, {"namespace": "team-a"}, False),
        ({}, {"kind": "Service", "group": ""}, False),
        ({}, {"kind": "Gateway", "group": "gateway.networking.k8s.io"}, True),
    ],
)
def test_routes_meet_at_a_listener(ours: dict[str, Any], theirs: dict[str, Any], meet: bool) -> None:
    foreign = body(path("/v2/models"), parent={**PARENT, **theirs})
    assert bool(conflict(foreign, build_own_route(parent={**PARENT, **ours}), {"http": 80, "https": 443})) == meet


def test_a_route_without_a_namespace_in_its_reference_is_at_a_gateway_of_its_own() -> None:
    foreign = body(path("/v2/models"), parent={"name": "public"})
    found = read_route(foreign)
    assert found is not None
    assert {attachment.gateway for attachment in found.attachments} == {GatewayKey("team-a", "public")}


def test_only_routes_that_take_requests_are_kept() -> None:
    refused = body(path("/v2/models"))
    refused["status"]["parents"][0]["conditions"] = [{"type": "Accepted", "status": "False"}]
    former = body(path("/v2/models"))
    former["spec"]["parentRefs"] = [{**PARENT, "name": "private"}]
    default = body()
    default["spec"]["rules"] = [{}]
    for foreign in (refused, former, default, body(path("/")), body(path("/v2/models"), hostnames=())):
        assert read_route(foreign) is None


def edits(value: Any, replacement: Any) -> Iterator[Any]:
    """Yield copies of a value, each with another part of it replaced."""
    yield replacement
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        for changed in edits(value[key], replacement):
            made = copy.copy(value)
            made[key] = changed
            yield made


@pytest.mark.parametrize("strange", STRANGE, ids=repr)
def test_no_route_is_too_odd_to_be_read(strange: Any) -> None:
    foreign = body(path("/v2/models", method="", headers=[], queryParams=[]), path("/v2/health", headers=BETA))
    for part in ("spec", "status"):
        for edit in edits(foreign[part], strange):
            conflict({**foreign, part: edit})
            ForeignRoutes().put({**foreign, part: edit})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=5), each, max_size=3),
    max_leaves=10,
)


@given(json_values, json_values)
def test_a_route_with_any_content_is_parsed(spec: Any, status: Any) -> None:
    assert conflict({**body(), "spec": spec, "status": status}) == ""


def test_the_store_of_foreign_routes_follows_the_routes() -> None:
    kept = ForeignRoutes()
    assert kept.put(body(path("/v2/models"), version=2)) == {NAME}
    assert kept.put(body(path("/v2/models"), name="older", created="2025-01-01T00:00:00Z")) == {NAME}
    assert [route.age.route for route in kept.at([NAME])] == ["team-a/older", "team-a/shop"]
    assert kept.discard(body(name="older")) == {NAME}
    assert kept.at(["*.example.com", "other.example.com"]) == []
    noise = body(path("/v2/models"), version=3, labels={"a": "b"})
    assert not kept.put(noise), "nothing that is read has changed"
    assert not kept.put(body(path("/v2/health"), version=1)), "an older version"
    assert kept.put(body(path("/v2/models"), hostnames=("a.org",), version=4)) == {NAME, "a.org"}
    assert kept.at([NAME]) == []
    assert not kept.put(body(path("/shop"), name="other"))
    assert not kept.retain("", frozenset({"uid-shop"}), 9), "it lists the only route that is kept"
    assert not kept.retain("elsewhere", frozenset(), 9)
    assert not kept.retain("", frozenset(), 3), "the route is newer than the list"
    assert kept.put(body(path("/v2/models", headers=BETA), hostnames=("a.org",), version=5)) == {"a.org"}
    assert not kept.discard(body(version=5)), "it was not kept"
    assert kept.put(body(path("/v2/models"), version=6))
    assert kept.retain("team-a", frozenset(), 6) == {NAME}


def test_a_route_that_a_service_controls_is_not_foreign() -> None:
    owner = {"apiVersion": "conch.dev/v1alpha1", "kind": "InferenceService", "name": "shop", "controller": True}
    kept = ForeignRoutes()
    assert kept.put(body(path("/v2/models")))
    assert kept.put(body(path("/v2/models"), version=2, ownerReferences=[owner])), "a service has adopted it"
    assert kept.at([NAME]) == []
    assert kept.put(body(path("/v2/models"), version=3)), "its service was deleted, and it was not"


def test_routes_are_watched_without_a_label() -> None:
    assert build_listing(HTTP_ROUTE).labels == ""
    assert build_listing(DEPLOYMENT).labels == names.LABEL_SERVICE


async def test_a_change_of_a_foreign_route_wakes_the_services_with_its_hostname() -> None:
    store, queue = Store(), WorkQueue()
    handlers = EventHandlers(store, Gateways(), queue)
    for name, hostname in (("same", NAME), ("wildcard", "*.example.com"), ("elsewhere", "a.org")):
        owner = {"apiVersion": "conch.dev/v1alpha1", "kind": "InferenceService", "name": name, "controller": True}
        route = body(path("/v2/models"), hostnames=(hostname,), ownerReferences=[{**owner, "uid": name}])
        route["metadata"].update(name=name, uid=name, labels={names.LABEL_SERVICE: name})
        store.put(route)
    handlers.handle_route(body(path("/v2/models")))
    assert len(queue) == 0, "every service is queued when it is listed"
    handlers.listed.set()
    handlers.handle_route(body(path("/v2/models"), version=2, labels={"a": "b"}))
    assert len(queue) == 0

    async def take_queued() -> set[str]:
        found = set()
        while not queue.idle:  # also those that rest
            key = await queue.get()
            queue.done(key)
            found.add(key.name)
        return found

    handlers.handle_route(body(path("/v2/models"), path("/v2/health"), version=3))
    assert await take_queued() == {"same"}
    handlers.handle_route(body(version=4), is_deleted=True)
    assert await take_queued() == {"same"}
    handlers.handle_route(body(version=4), is_deleted=True)
    assert queue.idle


async def test_a_services_route_without_its_label_is_lost_to_the_store_and_comes_back_with_it() -> None:
    store, queue = Store(), WorkQueue()
    handlers = EventHandlers(store, Gateways(), queue)
    handlers.listed.set()
    labels = {names.LABEL_SERVICE: KEY.name}
    route = body(path("/v2/models"), name=KEY.name, namespace=KEY.namespace, labels=labels)
    ref = Ref(HTTP_ROUTE, KEY.name)
    handlers.handle_route(route)
    assert store.get(KEY, ref) is not None
    assert await queue.get() == KEY
    queue.done(KEY)
    lost = body(path("/v2/models"), name=KEY.name, namespace=KEY.namespace, version=2)
    handlers.handle_route(lost)
    assert store.get(KEY, ref) is None
    assert await queue.get() == KEY, "it has to be written anew"
    queue.done(KEY)
    route["metadata"]["resourceVersion"] = "3"
    handlers.handle_route(route)
    assert store.get(KEY, ref) is not None


def serving() -> tuple[Cluster, str]:
    """A service behind a Gateway; and the name of its revision."""
    rollout = {"steps": [{"weight": 50}, {"pause": "Manual"}], "progressDeadline": "15m"}
    cluster = Cluster(build_manifest(minReplicas=2, rollout=rollout, traffic=TRAFFIC))
    cluster.reconcile()
    stable = cluster.decision().wanted
    start_revision(cluster, stable)
    assert cluster.condition("Ready") == ("True", "Served")
    return cluster, stable


def test_a_service_whose_requests_a_foreign_route_takes_is_not_ready_until_the_route_goes() -> None:
    cluster, stable = serving()
    foreign = body(path("/v2/models"), created="1970-01-01T00:00:00Z")
    cluster.store.routes.put(foreign)
    cluster.settle()
    for kind in ("TrafficProgrammed", "Ready"):
        assert cluster.condition(kind) == ("False", "HostnameTaken")
    assert cluster.condition("Stalled") == ("True", "HostnameTaken")
    assert cluster.condition("Serving") == ("True", "Answering"), "in the cluster it answers"
    found = cluster.status.condition("Ready")
    assert found is not None
    assert found.message == (
        "HTTPRoute team-a/shop gets requests of this service for the hostname magika.example.com at Gateway"
        " infra/public: those with the path prefix /v2/models, because its route is older; write another name in"
        " traffic.hostnames, or remove the match from that route"
    )

    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    new = cluster.decision().wanted
    start_revision(cluster, new)
    assert read_weights(cluster) == {stable: 50, new: 50}
    assert cluster.status.rollout is not None
    assert cluster.status.rollout.reason == "WaitsForPromotion", "a rollout is not held up"

    cluster.store.routes.discard(foreign)
    cluster.settle()
    assert cluster.condition("TrafficProgrammed") == ("True", "Programmed")


def test_a_foreign_route_of_other_requests_under_the_same_hostname_changes_nothing() -> None:
    cluster, _ = serving()
    writes = cluster.status_writes
    refined = path("/v2/models", method="POST", headers=BETA)
    cluster.store.routes.put(body(path("/"), path("/v2/models/other"), refined, created="1970-01-01T00:00:00Z"))
    cluster.settle()
    assert cluster.condition("Ready") == ("True", "Served")
    assert cluster.status_writes == writes


def test_the_route_of_a_service_that_was_deleted_without_it_is_named() -> None:
    cluster, _ = serving()
    orphan = copy.deepcopy(cluster.objects[Ref(HTTP_ROUTE, KEY.name)])
    orphan["metadata"] |= {"namespace": "left", "uid": "left", "creationTimestamp": "1970-01-01T00:00:00Z"}
    orphan["metadata"]["ownerReferences"] = []
    cluster.store.routes.put(orphan)
    cluster.settle()
    assert cluster.condition("Ready") == ("False", "HostnameTaken")


def test_the_route_of_a_service_without_an_owner_is_not_foreign() -> None:
    cluster, _ = serving()
    orphan = copy.deepcopy(cluster.objects[Ref(HTTP_ROUTE, KEY.name)])
    orphan["metadata"] |= {"ownerReferences": [], "creationTimestamp": "1970-01-01T00:00:00Z"}
    cluster.store.routes.put(orphan)
    assert cluster.snapshot().route_conflict is None
    cluster.settle()
    assert cluster.condition("Ready") == ("True", "Served")


def test_a_long_foreign_path_does_not_fill_the_status() -> None:
    cluster, _ = serving()
    cluster.store.routes.put(body(path("/v2/models/magika/" + "a" * 1000)))
    cluster.settle()
    found = cluster.status.condition("Ready")
    assert found is not None
    assert found.reason == "HostnameTaken"
    assert len(found.message) < 600
