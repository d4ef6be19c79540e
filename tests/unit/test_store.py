"""The store survives what watches do: repeats, delays, disorder, and missed deletions."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conch.api.kinds import CONFIG_MAP, REPLICA_SET, Ref, ServiceKey
from conch.api.names import ANNOTATION_APPLIED_HASH, LABEL_MANAGED_BY
from conch.events.handlers import EventHandlers
from conch.observe import Store
from conch.queue import WorkQueue
from conch_contract import names

KEY = ServiceKey("demo", "magika")
REF = Ref(CONFIG_MAP, "child")


def child(version: int, uid: str = "u1", text: str = "") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "child",
            "namespace": "demo",
            "uid": uid,
            "resourceVersion": str(version),
            "labels": {names.LABEL_SERVICE: "magika", LABEL_MANAGED_BY: "conch"},
            "annotations": {ANNOTATION_APPLIED_HASH: "0"},
            "managedFields": [{"manager": "conch"}],
        },
        "data": {"text": text},
    }


def text(store: Store) -> str | None:
    body = store.get(KEY, REF)
    return body["data"]["text"] if body else None


def test_an_object_belongs_to_the_service_that_its_label_names() -> None:
    store = Store()
    assert store.put(child(1)) == KEY
    assert store.put({**child(2), "metadata": {**child(2)["metadata"], "labels": {}}}) is None


def test_fields_that_are_not_read_are_not_kept_and_change_nothing() -> None:
    store = Store()
    store.put(child(1, text="a"))
    body = store.get(KEY, REF)
    assert body is not None
    assert "managedFields" not in body["metadata"]
    assert store.put(child(2, text="a")) is None, "only the version changed: no reconcile is needed"


def test_an_older_version_never_overwrites_a_newer_one() -> None:
    store = Store()
    store.put(child(9, text="new"))
    assert store.put(child(3, text="old")) is None
    assert text(store) == "new"


def test_a_late_event_does_not_bring_the_dead_back() -> None:
    store = Store()
    store.put(child(1))
    assert store.discard(child(2)) == KEY
    assert store.put(child(1)) is None
    assert text(store) is None
    assert store.put(child(5, uid="u2", text="reborn")) == KEY
    assert store.discard(child(2)) is None, "the old one's deletion, repeated, does not touch the new one"
    assert text(store) == "reborn"


def test_thousands_of_deletions_in_a_namespace_bring_nothing_back_in_another() -> None:
    store = Store()
    store.put(child(1))
    assert store.discard(child(2)) == KEY
    for number in range(10_000):
        gone = child(3, uid=f"gone-{number}")
        gone["metadata"]["namespace"] = "busy"
        store.put(gone)
        store.discard(gone)
    assert store.put(child(1)) is None
    assert text(store) is None


def test_a_list_forgets_what_was_deleted_unseen() -> None:
    store = Store()
    store.put(child(5))
    assert store.retain(CONFIG_MAP, "", frozenset({"u1"}), 9) == set()
    assert store.retain(CONFIG_MAP, "another", frozenset(), 9) == set(), "a list of another namespace has no effect"
    assert store.retain(CONFIG_MAP, "demo", frozenset(), 4) == set(), "the object is newer than the list"
    assert store.retain(CONFIG_MAP, "demo", frozenset(), 5) == {KEY}
    assert text(store) is None
    assert store.put(child(5)) is None, "its last event, which came late"


def test_the_answer_to_a_write_that_comes_after_a_list_without_the_object_does_not_bring_it_back() -> None:
    store = Store()
    store.put(child(5))
    store.retain(CONFIG_MAP, "demo", frozenset(), 9)
    assert store.put(child(7)) is None
    assert store.put(child(11)) == KEY, "it lost the label, and has it again"


@pytest.mark.parametrize("place", ["", "demo"])
async def test_the_answer_to_a_creation_that_comes_after_a_list_without_the_object_is_no_object(place: str) -> None:
    """It was deleted before the list, and no event reports this: its service would wait for it for ever."""
    handlers = EventHandlers(Store(), None, WorkQueue())
    handlers.retain(CONFIG_MAP, place, frozenset(), 9)
    handlers.handle_written(child(7))
    assert text(handlers.store) is None
    assert await asyncio.wait_for(handlers.queue.get(), 20) == KEY, "it is created again"
    handlers.queue.done(KEY)
    handlers.handle_written(child(7))
    assert handlers.queue.idle, "such as when a policy removes its label, so that no list has it"
    handlers.handle_written(child(10, uid="u2", text="new"))
    assert text(handlers.store) == "new"
    handlers.retain(CONFIG_MAP, place, frozenset({"u2"}), 12)
    handlers.handle_written(child(11, uid="u2", text="newer"))
    assert text(handlers.store) == "newer", "the list has it, in a version of its own"
    handlers.queue.close()


def test_an_object_that_the_cluster_serves_again_is_stored_again_in_the_same_version() -> None:
    """As after a version of a CRD was not served for a while, or a proxy answered so."""
    store = Store()
    store.put(child(5))
    assert store.retain(CONFIG_MAP, "", frozenset(), None) == {KEY}
    assert text(store) is None
    assert store.put(child(5)) == KEY
    assert text(store) == ""


def test_the_store_keeps_only_the_owner_of_an_object_that_only_has_the_label() -> None:
    store = Store()
    body = child(1, text="x" * 1_000_000)
    body["metadata"] |= {"annotations": {"a": "b" * 200_000}, "labels": {names.LABEL_SERVICE: "magika", "team": "a"}}
    body["metadata"]["ownerReferences"] = [
        {"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "1"},
        {"apiVersion": "apps/v1", "kind": "Deployment", "name": "b", "uid": "2", "controller": True},
    ]
    assert store.put(body) == KEY
    kept = store.get(KEY, REF)
    assert kept is not None
    assert "data" not in kept
    assert [owner["name"] for owner in kept["metadata"]["ownerReferences"]] == ["b"]
    assert kept["metadata"]["labels"] == {names.LABEL_SERVICE: "magika"}
    assert kept["metadata"]["annotations"] == {}


def test_the_store_keeps_a_thousand_objects_that_only_have_the_label_and_all_children() -> None:
    store = Store()
    for number in range(1500):
        body = child(number + 1, uid=f"foreign-{number}")
        body["metadata"] |= {"name": f"foreign-{number}", "labels": {names.LABEL_SERVICE: "magika"}}
        store.put(body)
    assert len(store.objects(KEY)) == 1000
    assert store.put(large(1, 0.1)) == KEY
    moved = large(2, 0.1, service="other")
    other = ServiceKey("demo", "other")
    assert store.put(moved) == other
    left = {
        **moved,
        "metadata": {**moved["metadata"], "resourceVersion": "9", "ownerReferences": [], "annotations": {}},
    }
    left["metadata"]["labels"] = {names.LABEL_SERVICE: "magika"}
    assert store.put(left) == other, "it has left its service, which is queued"
    assert store.objects(other) == {}
    gone = child(2000, uid="foreign-0")
    gone["metadata"] |= {"name": "foreign-0", "labels": {names.LABEL_SERVICE: "magika"}}
    assert store.discard(gone) == KEY
    body["metadata"] |= {"resourceVersion": "3000"}
    assert store.put(body) == KEY, "there is space again"


def large(number: int, mebibytes: float, service: str = "magika", version: int = 1) -> dict[str, Any]:
    """Return a ConfigMap of a service."""
    body = build_labelled(child(version, uid=f"large-{number}", text="x" * round(mebibytes * 2**20)), service, service)
    body["metadata"]["name"] = f"large-{number}"
    return body


def test_the_store_of_a_namespace_is_bounded_and_each_service_raises_the_bound() -> None:
    store = Store()
    for number in range(20):
        store.put(large(number, 1))
    assert [ref.name for ref in store.cut(KEY)] == ["large-15", "large-16", "large-17", "large-18", "large-19"]
    kept = store.get(KEY, Ref(CONFIG_MAP, "large-15"))
    assert kept is not None
    assert "data" not in kept
    assert kept["metadata"]["ownerReferences"] == large(15, 0)["metadata"]["ownerReferences"]
    store.discard(large(0, 1, version=2))
    assert store.put(large(15, 1)) == KEY, "it is read again, and there is space now"
    assert Ref(CONFIG_MAP, "large-15") not in store.cut(KEY)
    assert not store.put(large(15, 1))
    service = {"apiVersion": "conch.dev/v1alpha1", "kind": "InferenceService", "spec": {}}
    for name in ("a", "b"):
        store.put({**service, "metadata": {"name": name, "namespace": "demo", "uid": name, "resourceVersion": "1"}})
    store.put(large(16, 1))
    store.put(large(17, 1))
    store.put(large(18, 1))
    assert [ref.name for ref in store.cut(KEY)] == ["large-18", "large-19"]
    elsewhere = large(20, 1)
    elsewhere["metadata"]["namespace"] = "elsewhere"
    store.put(elsewhere)
    assert not store.cut(ServiceKey("elsewhere", "magika"))


@given(st.permutations([1, 2, 3, 4, 5, 5, 3]))
def test_in_whatever_order_events_come_the_newest_stays(order: list[int]) -> None:
    store = Store()
    for version in order:
        store.put(child(version, text=str(version)))
    assert text(store) == "5"


def build_labelled(body: dict[str, Any], service: str, controller: str = "") -> dict[str, Any]:
    """Return an object with another label, and with a service as its controller."""
    owner = {"apiVersion": "conch.dev/v1alpha1", "kind": "InferenceService", "name": controller, "controller": True}
    meta = {**body["metadata"], "labels": {names.LABEL_SERVICE: service}}
    return {**body, "metadata": {**meta, "ownerReferences": [owner] if controller else []}}


def test_an_object_that_regains_its_label_is_in_the_store() -> None:
    store = Store()
    store.put(child(1, text="a"))
    assert store.discard(child(2, text="a")) == KEY  # so a watch by label reports the loss of the label
    assert store.put(child(2, text="late")) is None
    assert store.put(child(3, text="a")) == KEY
    assert text(store) == "a"


def test_an_object_that_has_its_label_again_stays_though_the_loss_is_reported_later() -> None:
    store = Store()
    store.put(child(1, text="a"))
    assert store.put(child(3, text="b")) == KEY  # by the answer to the write that restored the label
    assert store.discard(child(2, text="a")) is None
    assert text(store) == "b"
    assert store.discard(child(4)) == KEY, "and it is deleted like any other"


def test_a_late_event_moves_no_object_back() -> None:
    store, other = Store(), ServiceKey("demo", "other")
    store.put(build_labelled(child(3), "magika"))
    assert store.put(build_labelled(child(2), "other")) is None
    assert store.get(other, REF) is None
    assert store.get(KEY, REF) is not None


async def test_both_services_are_queued_when_an_object_comes_to_name_the_other() -> None:
    store, queue = Store(), WorkQueue()
    handlers = EventHandlers(store, None, queue)
    handlers.handle(build_labelled(child(1), "magika"))
    assert await queue.get() == KEY
    queue.done(KEY)
    handlers.handle(build_labelled(child(2), "other"))
    assert {await queue.get(), await queue.get()} == {KEY, ServiceKey("demo", "other")}


def build_service(version: int, generation: int, name: str = "magika") -> dict[str, Any]:
    """Return a service, as a watch reports it."""
    meta = {"name": name, "namespace": "demo", "uid": name, "resourceVersion": str(version), "generation": generation}
    return {
        "apiVersion": "conch.dev/v1alpha1",
        "kind": "InferenceService",
        "metadata": meta,
        "spec": {"predictor": {"minReplicas": generation}},
        "status": {"observedGeneration": version},
    }


@pytest.mark.parametrize("handle", [EventHandlers.handle, EventHandlers.handle_written])
async def test_edited_services_new_ones_and_those_whose_status_alone_changed_take_turns(
    handle: Callable[[EventHandlers, dict[str, Any]], None],
) -> None:
    store, queue = Store(), WorkQueue()
    handlers = EventHandlers(store, None, queue)
    for name in ("magika", "other"):
        store.put(build_service(1, 1, name))
    handlers.handle(build_service(2, 1, "other"))
    for name in ("new", "newer"):
        handlers.handle(build_service(1, 1, name))
    handle(handlers, build_service(3, 2))
    assert [(await queue.get()).name for _ in range(4)] == ["magika", "new", "newer", "other"]


def replica_set(uid: str, version: int) -> dict[str, Any]:
    """Return a ReplicaSet of the service, as its metadata comes."""
    owner = {"kind": "Deployment", "uid": f"deployment-of-{uid}", "controller": True}
    meta = {"name": uid, "namespace": "demo", "uid": uid, "resourceVersion": str(version)}
    meta |= {"labels": {names.LABEL_SERVICE: "magika"}, "ownerReferences": [owner]}  # type: ignore[dict-item]
    return {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": meta}


def test_the_owner_of_a_replica_set_is_known_as_long_as_its_pods_may_be_there() -> None:
    store = Store()
    store.put(replica_set("gone", 1))
    assert store.discard(replica_set("gone", 2)) == KEY
    store.put(replica_set("lost", 1))
    store.retain(REPLICA_SET, "", frozenset(), 9)
    for version in range(10, 5_000):
        store.put(replica_set("there", version))
    assert store.past_owners.of("demo") == {"gone": "deployment-of-gone", "lost": "deployment-of-lost"}


def test_an_object_belongs_to_its_controller_whatever_its_label_is() -> None:
    store = Store()
    assert store.put(build_labelled(child(1), "other", controller="magika")) == KEY
    assert store.get(KEY, REF) is not None


def test_an_object_whose_label_names_another_service_leaves_the_first() -> None:
    store = Store()
    store.put(child(1))
    assert store.put(build_labelled(child(2), "other")) == KEY, "the one that lost it has to look"
    assert store.get(KEY, REF) is None
    assert store.get(ServiceKey("demo", "other"), REF) is not None
    assert store.discard(build_labelled(child(3), "other")) == ServiceKey("demo", "other")
    assert store.put(child(4)) == KEY
