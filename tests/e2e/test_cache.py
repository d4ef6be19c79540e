"""A claim as the cache of models: a pod starts from it though the store has the model no more."""

from __future__ import annotations

from collections.abc import Callable

from conch_contract import names
from tests.e2e.test_overwritten_files import multiply_by, predictor
from tests.support import clients
from tests.support.doubling import NUMBERS
from tests.support.place import Place
from tests.support.service import Service
from tests.support.store import Store
from tests.support.wait import until

URI = "s3://models/cached"
CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "shared"},
    "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "500Mi"}}},
}


def test_new_pods_start_from_the_cache(
    place: Place, serve: Callable[..., Service], namespace: str, bucket: Store
) -> None:
    bucket.upload(URI, multiply_by(2))
    place.kube.apply(CLAIM, namespace)
    service = serve("cached", **predictor(URI), cache={"claimName": "shared"})
    status = service.until_ready()
    assert service.status["revisions"][0]["models"][0]["digest"]
    bucket.upload(URI, multiply_by(3))
    service.patch({"predictor": {"minReplicas": 3}})
    until(lambda: len(service.ready_pods()) == 3, "its pods are ready")
    assert service.until_ready()["stable"] == status["stable"]
    with place.reach(namespace, service.name, names.HTTP_PORT) as [http]:
        answers = {clients.infer_http(http, "double", {"x": NUMBERS})["y"].tolist()[0] for _ in range(40)}
    assert answers == {2 * NUMBERS[0]}


def test_a_claim_that_is_not_there_is_named(serve: Callable[..., Service], bucket: Store) -> None:
    bucket.upload(URI, multiply_by(2))
    service = serve("no-claim", **predictor(URI), cache={"claimName": "absent"})
    ready = service.until_condition("Ready", "False")
    assert "absent" in ready["message"]
