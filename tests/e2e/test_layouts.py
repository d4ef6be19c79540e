"""The repositories that users of Triton have are applied as they are, and answer over HTTP and gRPC."""

from __future__ import annotations

import pytest

from conch_contract import names
from tests.support import clients
from tests.support.layouts import LAYOUTS
from tests.support.place import Place
from tests.support.service import Service
from tests.support.store import Store


@pytest.fixture(scope="module")
def services(place: Place, shared_namespace: str, bucket: Store) -> dict[str, Service]:
    """Services of all layouts, which come up side by side."""
    for name, layout in LAYOUTS.items():
        bucket.upload(f"s3://models/layouts/{name}", layout.files)
        model = {
            "modelFormat": {"name": "repository"},
            "storageUri": f"s3://models/layouts/{name}",
            "storage": {"secretRef": {"name": "s3"}},
        }
        body = {
            "apiVersion": "conch.dev/v1alpha1",
            "kind": "InferenceService",
            "metadata": {"name": name},
            "spec": {"predictor": {"entry": layout.entry, "model": model}},
        }
        place.kube.apply(body, shared_namespace)
    return {name: Service(place.kube, shared_namespace, name) for name in LAYOUTS}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_repository_is_served_as_it_is(name: str, place: Place, services: dict[str, Service]) -> None:
    service, layout = services[name], LAYOUTS[name]
    status = service.until_ready()
    folders = sorted({path.partition("/")[0] for path in layout.files if "/" in path})
    assert sorted(model["name"] for model in status["revisions"][0]["models"]) == folders
    with place.reach(service.namespace, name, names.HTTP_PORT, names.GRPC_PORT) as [http, grpc]:
        for model, (inputs, is_right) in layout.requests.items():
            assert is_right(clients.infer_http(http, model, inputs)), model
            assert is_right(clients.infer_grpc(grpc, model, inputs)), model
