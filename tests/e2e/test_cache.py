"""A claim as the cache of models: a pod starts from it though the store has the model no more."""

from __future__ import annotations

import os
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


def test_pods_without_a_claim_read_the_store_once_for_all(
    place: Place, serve: Callable[..., Service], namespace: str, bucket: Store
) -> None:
    """The first pods read pieces twice until they see each other; a later one reads small files alone."""
    uri, size = f"{URI}-by-peers", 40 << 20
    bucket.upload(uri, {**multiply_by(2), "weights.bin": os.urandom(size)})
    service = serve("peers", **predictor(uri), minReplicas=3, cache={"peers": True})
    service.until_ready()
    first = {pod["metadata"]["name"] for pod in service.ready_pods()}
    read = [read_bytes(place, namespace, pod) for pod in first]
    assert sum(store + peers for store, peers in read) >= 3 * size, "what each has is counted, from wherever"
    service.patch({"predictor": {"minReplicas": 4}})
    until(lambda: len(service.ready_pods()) == 4, "its pods are ready")
    [later] = {pod["metadata"]["name"] for pod in service.ready_pods()} - first
    store, peers = read_bytes(place, namespace, later)
    assert store < size / 10
    assert peers == size


def read_bytes(place: Place, namespace: str, pod: str) -> tuple[float, float]:
    """Return how many bytes a pod has read from the store, and from others."""
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}:{names.AGENT_PORT}/proxy{names.METRICS_PATH}"
    found = {}
    for line in place.kube.run("get", "--raw", path).splitlines():
        name, _, value = line.rpartition(" ")
        found[name.partition("{")[0]] = value
    return float(found["conch_model_downloaded_bytes_total"]), float(found["conch_model_peer_bytes_total"])


def test_a_claim_that_is_not_there_is_named(serve: Callable[..., Service], bucket: Store) -> None:
    bucket.upload(URI, multiply_by(2))
    service = serve("no-claim", **predictor(URI), cache={"claimName": "absent"})
    ready = service.until_condition("Ready", "False")
    assert "absent" in ready["message"]
