"""The store of Gateways and their classes, and which of their changes wake a service."""

from typing import Any

from conch.api.kinds import GATEWAY, GATEWAY_CLASS, HTTP_ROUTE, INFERENCE_SERVICE, Kind, ServiceKey
from conch.events.handlers import EventHandlers
from conch.observe import Gateways, Store
from conch.observe.gateways import GatewayKey, SeenGateway
from conch.queue import WorkQueue
from conch_contract import names
from tests.unit.simulation import build_manifest

PUBLIC = GatewayKey("infra", "public")
TRAFFIC = {"gateways": [{"name": "public", "namespace": "infra"}], "hostnames": ["magika.example.com"]}


def body(kind: Kind, name: str, version: int = 1, uid: str = "", **parts: Any) -> dict[str, Any]:
    meta = {"name": name, "uid": uid or f"uid-{name}", "resourceVersion": str(version)}
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": meta, "spec": {}, **parts}


def public(version: int = 1, class_name: str = "envoy", uid: str = "", **parts: Any) -> dict[str, Any]:
    made = body(GATEWAY, "public", version, uid, spec={"gatewayClassName": class_name}, **parts)
    made["metadata"]["namespace"] = "infra"
    return made


def envoy(version: int = 1, *features: Any) -> dict[str, Any]:
    return body(GATEWAY_CLASS, "envoy", version, status={"supportedFeatures": list(features)})


def test_a_gateway_looks_as_it_and_its_class_do() -> None:
    seen = Gateways()
    assert seen.find([PUBLIC]) == {PUBLIC: SeenGateway()}
    seen.put(public())
    assert seen.find([PUBLIC]) == {PUBLIC: SeenGateway(present=True, class_name="envoy")}
    seen.put(envoy(1, {"name": "HTTPRoute"}, "Gateway"))
    expected = SeenGateway(
        present=True, class_name="envoy", class_present=True, features=frozenset({"HTTPRoute", "Gateway"})
    )
    assert seen.find([PUBLIC]) == {PUBLIC: expected}


def test_only_fields_that_are_read_wake_a_service() -> None:
    seen = Gateways()
    assert seen.put(public(1)) == {PUBLIC}
    assert not seen.put(public(2, status={"listeners": [{"name": "http", "attachedRoutes": 7}]}))
    assert seen.put(public(3, class_name="traefik")) == {PUBLIC}
    assert not seen.put(envoy(4)), "a class of no Gateway"
    assert seen.put(public(5)) == {PUBLIC}
    assert not seen.put({**envoy(6), "status": {"conditions": [{"type": "Accepted"}]}})
    assert seen.put(envoy(7, {"name": "HTTPRoute"})) == {PUBLIC}
    assert not seen.put(envoy(8, "HTTPRoute")), "the same in another spelling"
    assert seen.discard(envoy(9)) == {PUBLIC}


def test_a_gateway_on_its_way_out_is_gone_and_a_class_serves_as_long_as_it_is_held() -> None:
    seen = Gateways()
    seen.put(envoy())
    seen.put(public(1))
    leaving = public(2)
    leaving["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"
    assert seen.put(leaving) == {PUBLIC}
    assert not seen.find([PUBLIC])[PUBLIC].present
    held = envoy(3)
    held["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"
    seen.put(public(4))
    seen.put(held)
    assert seen.find([PUBLIC])[PUBLIC].class_present


def test_the_ports_of_listeners_are_kept() -> None:
    seen = Gateways()
    listeners = [{"name": "http", "port": 80}, {"name": "odd", "port": "x"}, "odd"]
    made = public(1)
    made["spec"]["listeners"] = listeners
    assert seen.put(made) == {PUBLIC}
    assert seen.find([PUBLIC])[PUBLIC].ports == {"http": 80, "odd": 0}
    assert not seen.put({**made, "metadata": {**made["metadata"], "resourceVersion": "2"}})


def test_late_events_change_nothing() -> None:
    seen = Gateways()
    seen.put(public(5, uid="second"))
    assert not seen.put(public(2, class_name="old", uid="first"))
    assert not seen.discard(public(3, uid="first")), "its successor is there"
    assert seen.find([PUBLIC])[PUBLIC] == SeenGateway(present=True, class_name="envoy")


def test_an_audit_forgets_what_was_deleted_in_the_dark() -> None:
    seen = Gateways()
    seen.put(public())
    seen.put(envoy())
    assert seen.retain(GATEWAY_CLASS, frozenset({"uid-envoy"}), 9) == frozenset()
    assert seen.retain(GATEWAY_CLASS, frozenset(), 0) == frozenset(), "the class is newer than the list"
    assert seen.retain(GATEWAY_CLASS, frozenset(), 9) == {PUBLIC}
    assert seen.retain(GATEWAY, frozenset(), 9) == {PUBLIC}


async def test_a_service_that_names_a_gateway_is_queued_by_a_change_once_all_is_listed() -> None:
    store, queue = Store(), WorkQueue()
    handlers = EventHandlers(store, Gateways(), queue)
    for name, traffic in (("outside", TRAFFIC), ("inside", None), ("elsewhere", {"gateways": [{"name": "public"}]})):
        service = build_manifest(traffic=traffic)
        service["metadata"].update(name=name, uid=name)
        store.put(service)
    assert store.services_at(frozenset({PUBLIC})) == [ServiceKey("demo", "outside")]
    assert store.services_at(frozenset({GatewayKey("demo", "public")})) == [ServiceKey("demo", "elsewhere")]
    assert store.services_at(frozenset()) == []
    handlers.handle_gateway(public(1))
    assert len(queue) == 0, "every service is queued when it is listed"
    handlers.listed.set()
    handlers.handle_gateway(public(2, status={"listeners": []}))
    assert len(queue) == 0
    handlers.handle_gateway(public(3), is_deleted=True)
    assert await queue.get() == ServiceKey("demo", "outside")
    assert len(queue) == 0


def route_of(name: str, created: str, version: int, *, accepted: bool = True) -> dict[str, Any]:
    """Return the HTTPRoute of a service of the namespace demo."""
    labels = {names.LABEL_SERVICE: name}
    owner = {"apiVersion": INFERENCE_SERVICE.api_version, "kind": INFERENCE_SERVICE.name, "name": name, "uid": name}
    parent = {"name": "public", "namespace": "infra"}
    spec = {"parentRefs": [parent], "hostnames": TRAFFIC["hostnames"]}
    made = body(HTTP_ROUTE, name, version, uid=f"route-{name}", spec=spec)
    made["metadata"] |= {"namespace": "demo", "labels": labels, "creationTimestamp": created}
    made["metadata"]["ownerReferences"] = [{**owner, "controller": True}]
    conditions = [{"type": "Accepted", "status": str(accepted)}]
    return {**made, "status": {"parents": [{"parentRef": parent, "conditions": conditions}]}}


async def test_a_route_that_is_accepted_or_goes_wakes_the_services_whose_requests_it_takes() -> None:
    store, queue = Store(), WorkQueue()
    handlers = EventHandlers(store, Gateways(), queue)
    handlers.listed.set()

    async def take_queued() -> set[str]:
        found = set()
        while not queue.idle:  # also those that rest
            key = await queue.get()
            queue.done(key)
            found.add(key.name)
        return found

    for name in ("older", "younger"):
        service = build_manifest(traffic=TRAFFIC)
        service["metadata"].update(name=name, uid=name)
        handlers.handle(service)
    handlers.handle_route(route_of("older", "2026-01-01T00:00:00Z", 1, accepted=False))
    handlers.handle_route(route_of("younger", "2026-01-02T00:00:00Z", 2))
    assert await take_queued() == {"older", "younger"}
    handlers.handle_route(route_of("older", "2026-01-01T00:00:00Z", 3))
    assert await take_queued() == {"older", "younger"}
    handlers.handle_route(route_of("younger", "2026-01-02T00:00:00Z", 4, accepted=False))
    assert await take_queued() == {"younger"}
    handlers.handle_route(route_of("younger", "2026-01-02T00:00:00Z", 5))
    assert await take_queued() == {"younger"}
    handlers.handle_route(route_of("older", "2026-01-01T00:00:00Z", 6), is_deleted=True)
    assert await take_queued() == {"older", "younger"}
