"""The store survives what watches do: repeats, delays, disorder, and deletions that nobody told."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from conch.api.kinds import CONFIG_MAP, Ref, ServiceKey
from conch.observe import Store
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
            "labels": {names.LABEL_SERVICE: "magika"},
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


def test_what_nobody_reads_is_not_kept_and_changes_nothing() -> None:
    store = Store()
    store.put(child(1, text="a"))
    body = store.get(KEY, REF)
    assert body is not None
    assert "managedFields" not in body["metadata"]
    assert store.put(child(2, text="a")) is None, "only the version changed: nobody needs to look"


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
    assert store.discard(child(2)) is None, "the old one's deletion, told twice, does not touch the new one"
    assert text(store) == "reborn"


def test_an_audit_forgets_what_was_deleted_in_the_dark() -> None:
    store = Store()
    store.put(child(1))
    assert store.evict(CONFIG_MAP, frozenset()) == set()
    assert store.evict(CONFIG_MAP, store.uids(CONFIG_MAP)) == {KEY}
    assert text(store) is None


@given(st.permutations([1, 2, 3, 4, 5, 5, 3]))
def test_in_whatever_order_events_come_the_newest_stays(order: list[int]) -> None:
    store = Store()
    for version in order:
        store.put(child(version, text=str(version)))
    assert text(store) == "5"


def labelled(body: dict[str, Any], service: str, controller: str = "") -> dict[str, Any]:
    """Return an object with another label, and with a service as its controller."""
    owner = {"apiVersion": "conch.dev/v1alpha1", "kind": "InferenceService", "name": controller, "controller": True}
    meta = {**body["metadata"], "labels": {names.LABEL_SERVICE: service}}
    return {**body, "metadata": {**meta, "ownerReferences": [owner] if controller else []}}


def test_an_object_that_lost_its_label_and_has_it_again_is_there_again() -> None:
    store = Store()
    store.put(child(1, text="a"))
    assert store.discard(child(2, text="a")) == KEY  # so a watch by label reports the loss of the label
    assert store.put(child(2, text="late")) is None
    assert store.put(child(3, text="a")) == KEY
    assert text(store) == "a"


def test_an_object_belongs_to_its_controller_whatever_its_label_says() -> None:
    store = Store()
    assert store.put(labelled(child(1), "other", controller="magika")) == KEY
    assert store.get(KEY, REF) is not None


def test_an_object_whose_label_names_another_service_leaves_the_first() -> None:
    store = Store()
    store.put(child(1))
    assert store.put(labelled(child(2), "other")) == KEY, "the one that lost it has to look"
    assert store.get(KEY, REF) is None
    assert store.get(ServiceKey("demo", "other"), REF) is not None
    assert store.discard(labelled(child(3), "other")) == ServiceKey("demo", "other")
    assert store.put(child(4)) == KEY
