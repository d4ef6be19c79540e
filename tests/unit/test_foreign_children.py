"""Children that another writer has edited: whatever they hold, they are read, and Conch's fields are restored."""

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

import pytest

from conch.api.kinds import (
    AUTOSCALER,
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    HTTP_ROUTE,
    INFERENCE_SERVICE,
    POD,
    SERVICE,
    Kind,
    Ref,
)
from conch.api.names import ANNOTATION_ACCEPTED, ANNOTATION_GENERATION
from conch.observe.snapshot import Revision
from conch_contract import names
from tests.unit.simulation import KEY, Cluster, build_manifest, read_weights

TRAFFIC: Final = {"gateways": [{"name": "public", "namespace": "infra"}], "hostnames": ["magika.example.com"]}
STEPS: Final = [{"weight": 50}, {"pause": "1h"}]
MATCH: Final = {"name": "beta", "match": [{"headers": [{"name": "x-beta", "value": "1"}]}]}
COPY: Final = {"name": "shadow", "mirror": "100%"}
# The API server keeps these as they are, for every writer; and a Service, Deployment or autoscaler always has them.
FIXED: Final = frozenset(
    {"apiVersion", "kind", "name", "namespace", "uid", "resourceVersion", "creationTimestamp", "status", "generation"}
)
MOST: Final = 60  # edits of a kind that are tried
STRANGE: Final[tuple[Any, ...]] = (None, "x", "", 7, -1, True, [], {}, [{}], ["x"], {"x": "y"})


def start_paused_rollout() -> tuple[Cluster, str, str]:
    """A service with variants, in the pause of a rollout at half of the requests."""
    return copy.deepcopy(_start_paused_rollout())


@cache
def _start_paused_rollout() -> tuple[Cluster, str, str]:
    service = build_manifest(minReplicas=1, maxReplicas=3, rollout={"steps": STEPS}, traffic=TRAFFIC)
    service["spec"]["variants"] = [MATCH, COPY]
    cluster = Cluster(service)
    cluster.reconcile()
    stable = cluster.decision().wanted
    _start_all_pods(cluster)
    cluster.edit(uri="s3://models/v2")
    cluster.settle()
    candidate = cluster.decision().wanted
    _start_all_pods(cluster)
    assert (cluster.status.stable, cluster.status.weight) == (stable, 50)
    return cluster, stable, candidate


def _start_all_pods(cluster: Cluster) -> None:
    for _ in range(12):
        for ref in [ref for ref in cluster.objects if ref.kind == DEPLOYMENT]:
            cluster.start_pods(ref.name)
        if Ref(HTTP_ROUTE, KEY.name) in cluster.objects:
            cluster.accept_routes()
        cluster.now += 30
        cluster.settle()


def children(cluster: Cluster) -> dict[Ref, Any]:
    """The content of the children, without what each write changes."""
    found = copy.deepcopy(
        {ref: body for ref, body in cluster.objects.items() if ref.kind not in {INFERENCE_SERVICE, POD}}
    )
    for body in found.values():
        for field in ("resourceVersion", "generation"):
            body["metadata"].pop(field, None)
        body.pop("status", None)
        body["metadata"].get("annotations", {}).pop(ANNOTATION_ACCEPTED, None)
    return found


def edits(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield each field and item of an object, with what may stand in its place."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from (((*path, key), strange) for strange in _draw_replacement(item, *path, key))
        if path or key not in FIXED:
            yield from edits(item, (*path, key))


def _draw_replacement(value: Any, *path: Any) -> tuple[Any, ...]:
    """What may stand in place of a field; the API server holds the types of metadata."""
    match path:
        case ("metadata",) | ("spec",):
            return ()
        case (field,) | ("metadata", field) if field in FIXED:
            return ()
        case ("metadata", "labels" | "annotations", _):
            return (None, "", "x")
        case ("metadata", "ownerReferences", _, field) if field != "controller":
            return ()
        case ("metadata", *_):
            return (None,)
    # What is empty or false is absent too, or has a default, in an API server.
    return STRANGE if value else STRANGE[1:]


def build_edited(body: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """Return an object with one field that holds something else; None: it lacks it."""
    body = copy.deepcopy(body)
    place: Any = body
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return body


@pytest.mark.parametrize(
    "kind", [HTTP_ROUTE, SERVICE, DEPLOYMENT, CONFIG_MAP, AUTOSCALER, DISRUPTION_BUDGET], ids=lambda kind: kind.name
)
def test_any_field_of_a_child_may_hold_anything(kind: Kind) -> None:
    good, _, _ = start_paused_rollout()
    before = children(good)
    found = [(ref, *edit) for ref, body in good.objects.items() if ref.kind == kind for edit in edits(body)]
    # A Deployment without its label is one that was deleted.
    found = [edit for edit in found if kind != DEPLOYMENT or edit[1:] not in _UNLABELLED]
    for ref, path, value in found[:: 1 + len(found) // MOST]:
        cluster = copy.deepcopy(good)
        cluster.put(build_edited(cluster.objects[ref], path, value))
        assert _is_restored(cluster, before), (ref, path, value)


_UNLABELLED: Final = ((("metadata", "labels"), None), (("metadata", "labels", names.LABEL_SERVICE), None))


def _is_restored(cluster: Cluster, before: dict[Ref, Any]) -> bool:
    for _ in range(6):
        cluster.settle()
        if children(cluster) == before and cluster.status.weight == 50:
            return True
        cluster.accept_routes()
        cluster.now += 30
    return False


@pytest.mark.parametrize("accepted", ["", "x", "2", "2 ", "2 x", "{} yesterday", "{} 9999-12-31T23:59:59Z", "{} 1"])
def test_a_route_that_was_accepted_at_no_time_is_waited_for(accepted: str) -> None:
    good, _, _ = start_paused_rollout()
    before = children(good)
    body = copy.deepcopy(good.objects[Ref(HTTP_ROUTE, KEY.name)])
    del body["spec"]["rules"][2:]  # the rules of a variant, which are inactive at first when they come back
    body["metadata"]["annotations"] = {ANNOTATION_ACCEPTED: accepted.format(body["metadata"]["generation"] + 2)}
    good.put(body)
    assert _is_restored(good, before)


@pytest.mark.parametrize(
    "data", [None, {}, {"template": "x"}, {"template": {}, "manifest": "{}", "predictor": {}}, "x"]
)
def test_an_unreadable_record_is_rewritten_and_all_pods_stay(data: Any) -> None:
    """The API server takes no change of a record's data: it was deleted, and made by another writer."""
    good, stable, candidate = start_paused_rollout()
    before = children(good)
    for name in (candidate, stable):
        cluster = copy.deepcopy(good)
        cluster.put(build_edited(cluster.objects[Ref(CONTROLLER_REVISION, name)], ("data",), data))
        cluster.settle()
        now = children(cluster)
        for found in (now, before):  # the generation of the candidate is now that of the spec
            found[Ref(CONTROLLER_REVISION, candidate)].pop("metadata", None)
        if name == stable:  # no record knows it any more; what it has stays
            del now[Ref(CONTROLLER_REVISION, name)], before[Ref(CONTROLLER_REVISION, name)]
        assert now == before
        assert read_weights(cluster) == {stable: 50, candidate: 50}


def test_annotations_of_a_record_may_hold_anything() -> None:
    cluster, stable, _ = start_paused_rollout()
    for text in ("", "x", "-1", "\u0663", "9" * 40):
        body = copy.deepcopy(cluster.objects[Ref(CONTROLLER_REVISION, stable)])
        body["metadata"]["annotations"][ANNOTATION_GENERATION] = text
        cluster.put(body)
        cluster.settle()
        record = cluster.objects[Ref(CONTROLLER_REVISION, stable)]
        assert record["metadata"]["annotations"][ANNOTATION_GENERATION] == "0"


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("step", [-5, -1, 4, 7, 2**40])
def test_a_step_that_there_is_not_ends_no_pause(step: int, kept: bool) -> None:
    cluster, stable, candidate = start_paused_rollout()
    ref = Ref(INFERENCE_SERVICE, KEY.name)
    body = build_edited(cluster.objects[ref], ("status", "rollout", "step"), step)
    if not kept:
        body["status"]["rollout"].pop("steps")
    cluster.put(body)
    cluster.settle()
    rollout = cluster.status.rollout
    assert rollout is not None
    assert (rollout.step, rollout.reason) == (1, "Paused")
    assert read_weights(cluster) == {stable: 50, candidate: 50}


def test_any_field_of_the_status_may_hold_anything() -> None:
    good, stable, candidate = start_paused_rollout()
    ref = Ref(INFERENCE_SERVICE, KEY.name)
    found = list(edits(good.objects[ref]["status"], ("status",)))
    for path, value in found[:: 1 + len(found) // MOST]:
        cluster = copy.deepcopy(good)
        cluster.put(build_edited(cluster.objects[ref], path, value))
        for _ in range(3):
            cluster.settle()
            cluster.accept_routes()
        assert cluster.condition("Serving") == ("True", "Answering"), (path, value)
        assert {stable, candidate} <= {revision.name for revision in cluster.status.revisions}, (path, value)


@pytest.mark.parametrize("text", ["{}", "[]", '{"models": {}}', '{"models": [1]}', "[" * 100_000, "no JSON"])
def test_a_record_whose_manifest_has_no_models_is_no_revision(text: str) -> None:
    cluster, stable, _ = start_paused_rollout()
    record = copy.deepcopy(cluster.objects[Ref(CONTROLLER_REVISION, stable)])
    assert Revision.parse(record) is not None
    record["data"]["manifest"] = text
    assert Revision.parse(record) is None
    cluster.put(record)
    cluster.reconcile()
