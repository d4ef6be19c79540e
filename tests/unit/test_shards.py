"""Installations that share the services of a cluster by their labels."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conch.api import kinds
from conch.api.kinds import CONFIG_MAP, INFERENCE_SERVICE, Ref
from conch.observe import Store
from conch.observe.installation import Scope
from conch.settings import Settings, SettingsError
from conch_contract import names
from tests.unit.test_store import KEY, REF, child, text

MINE, THEIRS = {"shard": "a"}, {"shard": "b"}
SERVICE = Ref(INFERENCE_SERVICE, "magika")


def service(version: int, labels: dict[str, str]) -> dict[str, Any]:
    meta = {"name": "magika", "namespace": "demo", "uid": "s", "resourceVersion": str(version), "labels": labels}
    return {"apiVersion": "conch.dev/v1alpha1", "kind": "InferenceService", "metadata": meta | {"generation": 1}}


def route(name: str, second: str, note: str = "") -> dict[str, Any]:
    """An HTTPRoute of a service that a Gateway has accepted, created in a second of one minute."""
    owner = {"apiVersion": "conch.dev/v1alpha1", "kind": "InferenceService", "name": name, "controller": True}
    meta = {
        "name": name,
        "namespace": "demo",
        "uid": f"route-{name}",
        "resourceVersion": "2",
        "creationTimestamp": f"2026-01-01T00:00:{second}Z",
        "labels": {names.LABEL_SERVICE: name},
        "ownerReferences": [owner | {"uid": "s" if name == "magika" else name}],
    }
    accepted = {"parentRef": {"name": "public"}, "conditions": [{"type": "Accepted", "status": "True"}]}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": meta,
        "spec": {"hostnames": ["magika.example.com"], "parentRefs": [{"name": "public"}], "note": note},
        "status": {"parents": [accepted]},
    }


def make_store() -> Store:
    return Store(Scope(selector="shard=a").selects)


def test_only_the_metadata_of_objects_of_other_services_is_kept() -> None:
    store = make_store()
    assert store.put(child(1, text="a")) is None, "no service is to be reconciled"
    body = store.get(KEY, REF)
    assert body is not None
    assert "data" not in body
    store.put(service(2, MINE))
    assert store.left_out(KEY) == {CONFIG_MAP: {"magika"}}
    assert store.put_written(child(1, text="a")) == KEY, "the same version, as a list has it"
    assert text(store) == "a"
    assert store.left_out(KEY) == {}


def test_objects_of_others_leave_the_space_of_a_namespace_to_its_own_services() -> None:
    store = make_store()
    store.put(service(1, MINE))
    for number in range(40):
        body = child(2, uid=f"other-{number}", text="x" * (1 << 20))
        body["metadata"]["labels"][names.LABEL_SERVICE] = f"other-{number}"
        store.put(body)
    store.put(child(3, text="x" * (1 << 20)))
    assert store.cut(KEY) == []


def test_routes_of_others_leave_the_space_of_a_namespace_to_its_own_services_and_keep_their_hostnames() -> None:
    store = make_store()
    store.put(service(1, MINE))
    for number in range(40):
        store.put(route(f"other-{number}", f"{number:02}", note="x" * (1 << 20)))
    store.put(route("magika", "59"))
    store.put(child(3, text="x" * (1 << 20)))
    assert store.cut(KEY) == []
    conflict = store.hostnames.conflict(KEY)
    assert conflict is not None
    assert conflict[0].name == "other-0", "the oldest route has the hostname, whichever installation serves it"
    assert store.discard(service(4, THEIRS)) == KEY
    store.put(service(5, MINE))
    assert kinds.HTTP_ROUTE in store.left_out(KEY)
    assert store.hostnames.conflict(KEY) == conflict


def test_a_service_whose_label_has_changed_is_dropped_and_of_its_objects_the_content() -> None:
    store = make_store()
    store.put(service(1, MINE))
    store.put(child(2, text="a"))
    assert store.discard(service(3, THEIRS)) == KEY
    assert store.get(KEY, SERVICE) is None
    assert store.put(child(4, text="b")) is None
    store.put(service(5, MINE))
    assert store.left_out(KEY) == {CONFIG_MAP: {"magika"}}


def test_the_answer_to_a_status_that_comes_before_the_event_of_the_label_drops_the_service() -> None:
    """The watch reports the change as a deletion in its version, which is older than that of the answer."""
    store = make_store()
    store.put(service(1, MINE))
    assert store.put_written(service(3, THEIRS)) == KEY
    assert store.discard(service(2, THEIRS)) is None
    assert store.get(KEY, SERVICE) is None
    assert store.put(service(4, MINE)) == KEY


def test_events_of_a_label_that_comes_and_goes_bring_no_service_back_that_an_answer_has_dropped() -> None:
    """The label changes in the versions 2, 3 and 4; the answer to a status has version 5, and comes first."""
    store = make_store()
    store.put(service(1, MINE))
    assert store.put_written(service(5, THEIRS)) == KEY
    assert store.discard(service(2, THEIRS)) is None
    assert store.put(service(3, MINE)) is None
    assert store.get(KEY, SERVICE) is None
    assert store.discard(service(4, THEIRS)) is None
    assert store.put(service(6, MINE)) == KEY


def test_an_object_that_was_left_out_and_is_deleted_is_known_no_more() -> None:
    store = make_store()
    store.put(child(1))
    store.put(service(2, MINE))
    assert store.discard(child(3)) == KEY
    assert store.left_out(KEY) == {}


@given(st.permutations(range(6)), st.integers(0, 5))
def test_in_whatever_order_events_come_nothing_of_an_own_service_is_missing(order: list[int], deleted: int) -> None:
    """Versions 1 to 6: the label comes and goes, the child changes. What is left out is listed in the end."""
    store, last = make_store(), child(6, text="last")
    events = [
        service(1, MINE),
        child(2, text="first"),
        service(3, THEIRS),
        child(4, text="later"),
        service(5, MINE),
        last,
    ]
    for number in order:
        if number == deleted:
            store.put_written(events[number])  # answers are put in another way
        else:
            store.put(events[number])
    for _ in store.left_out(KEY):
        store.put_written(last)
    assert text(store) == "last"
    assert store.get(KEY, SERVICE) is not None


def test_the_lease_has_what_an_installation_serves() -> None:
    scope = Scope(frozenset({"b", "a"}), "shard in (a, b)")
    assert Scope.read(scope.build_annotations()) == scope
    assert Scope.read(Scope().build_annotations()) == Scope()


@pytest.mark.parametrize("annotations", [None, {}, [], {"conch.dev/watch-label-selector": "a=("}, {"a": 1}])
def test_a_lease_that_states_nothing_of_it_serves_everything(annotations: Any) -> None:
    assert Scope.read(annotations).covers("demo", THEIRS)


def test_the_selector_of_services_is_a_label_selector() -> None:
    needed = {"CONCH_SERVING_IMAGE": "conch/serving:1"}
    assert Settings.read({**needed, "CONCH_LABEL_SELECTOR": " !shard "}).scope == Scope(selector="!shard")
    with pytest.raises(SettingsError, match=r"CONCH_LABEL_SELECTOR: 'shard=\(a\)' is not a label selector; expected"):
        Settings.read({**needed, "CONCH_LABEL_SELECTOR": "shard=(a)"})


def test_an_object_whose_label_names_another_service_than_its_owner_is_listed_by_its_label() -> None:
    """A user may write the label of a child: it would be missing in a list by the label of its service."""
    store, body = make_store(), child(1, text="a")
    body["metadata"]["labels"][names.LABEL_SERVICE] = "other"
    owner = {"apiVersion": "conch.dev/v1alpha1", "kind": "InferenceService", "name": "magika", "controller": True}
    body["metadata"]["ownerReferences"] = [owner | {"uid": "s"}]
    store.put(body)
    store.put(child(1, uid="u2") | {"kind": "Service"})
    store.put(service(2, MINE))
    assert store.left_out(KEY) == {CONFIG_MAP: {"other"}, kinds.SERVICE: {"magika"}}
