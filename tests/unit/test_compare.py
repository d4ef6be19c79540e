"""Which differences need a write, and which are another notation of the same object."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conch.observe.compare import find_differences, fingerprint, is_subset
from conch.observe.managers import spell

SAME: list[tuple[Any, Any]] = [
    ({"a": 1, "others": 2}, {"a": 1}),
    ({"cpu": "500m"}, {"cpu": "0.5"}),
    ({"cpu": "2"}, {"cpu": 2}),
    ({"memory": "1Gi"}, {"memory": "1024Mi"}),
    ({"memory": "1e3"}, {"memory": "1k"}),
    ({}, {"annotations": {}}),
    ({}, {"args": []}),
    ({}, {"paused": False}),
    ({"env": [{"name": "A"}]}, {"env": [{"name": "A", "value": ""}]}),
    ([{"port": 80, "nodePort": 30000}], [{"port": 80}]),
]
DIFFERENT: list[tuple[Any, Any]] = [
    ({"a": 1}, {"a": 2}),
    ({}, {"a": 1}),
    (None, {"a": 1}),
    ([1, 2], [1]),
    ([], [1]),
    ({"cpu": "500m"}, {"cpu": "501m"}),
    ({"memory": "1Gi"}, {"memory": "1G"}),
    ({"image": "a:1"}, {"image": "a:2"}),
    ({"a": "text"}, {"a": {"b": 1}}),
]


A, B, FOREIGN = {"port": 80, "name": "a"}, {"port": 81, "name": "b"}, {"port": 9, "protocol": "UDP"}


def service(*ports: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"ports": [{"protocol": "TCP", **port} for port in ports]}}


def pod(**container: Any) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": [{"name": "triton", **container}]}}}}


SAME += [
    (service(A, FOREIGN, B), service(A, B)),
    (service(FOREIGN, A), {"spec": {"ports": [A]}}),  # TCP is the default of a key
    (pod(env=[{"name": "X"}, {"name": "A", "value": "1"}]), pod(env=[{"name": "A", "value": "1"}])),
    (
        pod(volumeMounts=[{"mountPath": "/a", "name": "a"}, {"mountPath": "/b"}]),
        pod(volumeMounts=[{"mountPath": "/a"}]),
    ),
    (
        {"metadata": {"ownerReferences": [{"uid": "1"}, {"uid": "2"}]}},
        {"metadata": {"ownerReferences": [{"uid": "2"}]}},
    ),
]
DIFFERENT += [
    (service(A, FOREIGN), service(A, B)),
    (service(B, A), service(A, B)),  # an apply restores the order
    (service({**A, "name": "c"}, B), service(A, B)),
    (service({**A, "protocol": "UDP"}), service(A)),
    (pod(env=[{"name": "A", "value": "2"}]), pod(env=[{"name": "A", "value": "1"}])),
    (pod(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]), pod(env=[{"name": "A", "value": "1"}])),
    (pod(args=["a", "b"]), pod(args=["a"])),
    # A ControllerRevision holds a pod template too, as data that the API server does not merge.
    ({"data": {"template": pod(env=[{"name": "A"}, {"name": "B"}])}}, {"data": {"template": pod(env=[{"name": "A"}])}}),
]


_LABEL = [".metadata.labels[conch.dev/service]"]
MATCHES = [{"path": {"type": "PathPrefix", "value": "/v2/models"}}]


def route(**rule: Any) -> dict[str, Any]:
    return {"spec": {"rules": [{"matches": MATCHES, **rule}]}}


DIFFERENT += [
    # Items of a list that an apply replaces: what others add to them is undone.
    (route(filters=[{"type": "RequestHeaderModifier"}]), route()),
    (route(timeouts={"request": "1s"}), route()),
    (route(matches=[{**MATCHES[0], "method": "GET"}]), route()),
    (route(backendRefs=[{"name": "a", "namespace": "theirs"}]), route(backendRefs=[{"name": "a"}])),
    # Absence is no default there.
    ({"spec": {}}, {"spec": {"automountServiceAccountToken": False}}),
    ({"name": "tmp", "hostPath": {"path": "/"}}, {"name": "tmp", "emptyDir": {}}),
    ({"emptyDir": -1}, {"emptyDir": {}}),
]
SAME += [
    (route(filters=[]), route()),
    (route(backendRefs=[{"name": "a", "weight": 1}]), route(backendRefs=[{"name": "a"}])),
    ({"spec": {}}, {"spec": {"nodeSelector": {}}}),
]


@pytest.mark.parametrize(("observed", "desired"), SAME)
def test_equivalent_objects_are_equal(observed: Any, desired: Any) -> None:
    assert is_subset(observed, desired)


@pytest.mark.parametrize(("observed", "desired"), DIFFERENT)
def test_a_difference_that_must_be_written(observed: Any, desired: Any) -> None:
    assert not is_subset(observed, desired)


@pytest.mark.parametrize(("observed", "desired"), SAME)
def test_equal_objects_differ_in_no_field(observed: Any, desired: Any) -> None:
    assert not list(find_differences(observed, desired))


@pytest.mark.parametrize(("observed", "desired"), DIFFERENT)
def test_an_object_that_must_be_written_differs_in_some_field(observed: Any, desired: Any) -> None:
    assert list(find_differences(observed, desired))


@pytest.mark.parametrize(
    ("observed", "desired", "fields"),
    [
        (service({**A, "name": "c"}, B), service(A, B), ['.spec.ports[port=80,protocol="TCP"].name']),
        (service(B, A), service(A, B), [".spec.ports"]),
        (service(A), service(A, B), ['.spec.ports[port=81,protocol="TCP"]']),
        (
            pod(image="a", env=[{"name": "A", "value": "2"}]),
            pod(image="b", env=[{"name": "A", "value": "1"}]),
            [
                '.spec.template.spec.containers[name="triton"].image',
                '.spec.template.spec.containers[name="triton"].env[name="A"].value',
            ],
        ),
        (route(timeouts={"request": "1s"}), route(), [".spec.rules"]),
        ({"metadata": {}}, {"metadata": {"labels": {"conch.dev/service": "a"}}}, [".metadata.labels"]),
        ({"metadata": {"labels": {"a": "b"}}}, {"metadata": {"labels": {"conch.dev/service": "a"}}}, _LABEL),
    ],
)
def test_a_difference_is_named_as_server_side_apply_owns_it(observed: Any, desired: Any, fields: list[str]) -> None:
    assert [spell(place) for place, _ in find_differences(observed, desired)] == fields


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(JSON)
def test_every_object_is_a_subset_of_itself(value: Any) -> None:
    assert is_subset(value, value)


@given(st.dictionaries(st.text(max_size=3), JSON, max_size=4))
def test_a_fingerprint_does_not_depend_on_the_order_of_keys(value: dict[str, Any]) -> None:
    assert fingerprint(value) == fingerprint(dict(reversed(value.items())))
