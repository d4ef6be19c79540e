"""Every file of examples/, applied as it stands, answers; those that have a test file of their own are not here."""

from __future__ import annotations

import pytest

from conch.api.kinds import AUTOSCALER
from conch_contract import names
from tests.support import clients, examples
from tests.support.examples import Example
from tests.support.gateways import Gateway
from tests.support.place import Place
from tests.support.service import Service
from tests.support.store import Store
from tests.support.wait import until

OWN_FILE = {"quickstart", "keda", "sequences"}
EXAMPLES = [example for example in examples.all_examples() if example.file.stem not in OWN_FILE]


@pytest.fixture(scope="module")
def applied(place: Place, shared_namespace: str, bucket: Store, gateway: Gateway) -> str:
    """A namespace with all of them, applied at once."""
    del gateway  # canary.yaml and variants.yaml name it
    examples.prepare(place.kube, shared_namespace, bucket)
    for example in EXAMPLES:
        place.kube.apply(example.file, shared_namespace)
    return shared_namespace


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.file.stem)
def test_an_example_answers(example: Example, place: Place, applied: str) -> None:
    service = Service(place.kube, applied, example.name)
    service.until_ready()
    for name in example.services:
        with place.reach(applied, name, names.HTTP_PORT, names.GRPC_PORT) as [http, grpc]:
            for answer in (
                clients.infer_http(http, example.model, example.inputs),
                clients.infer_grpc(grpc, example.model, example.inputs),
            ):
                assert example.right(answer), answer


def test_two_versions_answer_side_by_side(place: Place, applied: str) -> None:
    [example] = (one for one in EXAMPLES if one.file.stem == "triton-repository")
    service = Service(place.kube, applied, example.name)
    [model] = until(lambda: service.status["revisions"][0].get("models"), "the status has the models")
    assert sorted(model["versions"]) == [2, 3]
    with place.reach(applied, example.name, names.GRPC_PORT) as [grpc]:
        versions = [
            clients.infer_grpc(grpc, "add-sub", example.inputs, version=str(v))["version"].tolist() for v in (2, 3)
        ]
    assert versions == [[2], [3]]


def test_the_autoscaler_has_the_words_of_the_example(place: Place, applied: str) -> None:
    service = Service(place.kube, applied, "magika-autoscaling")
    [autoscaler] = service.children(AUTOSCALER)
    spec = autoscaler["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (1, 8)
    [metric] = spec["metrics"]
    assert metric["pods"]["metric"]["name"] == "triton_queue_to_compute_ratio"
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "1"}
    service.until_condition("Autoscaling", "True")
