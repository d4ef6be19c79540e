"""The servers that e2e tests put beside Conch: their manifests agree with the code that waits for them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import binaries, images
from tests.cluster.paths import REPOSITORY
from tests.support import gateways, prometheus, store
from tests.support.prometheus_targets import targets

MANIFESTS = [*gateways.MANIFESTS.values(), prometheus.MANIFEST, store.MANIFEST]


def objects(path: Path, kind: str) -> list[dict[str, Any]]:
    found = [item for item in yaml.safe_load_all(path.read_text()) if item["kind"] == kind]
    assert found, f"{path.name} has no {kind}"
    return found


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_pods_request_little_and_use_images_that_are_built_here(path: Path) -> None:
    for deployment in objects(path, "Deployment"):
        for container in deployment["spec"]["template"]["spec"]["containers"]:
            assert f"docker.io/{container['image']}" in {images.reference(name) for name in images.IMAGES}
            assert int(container["resources"]["requests"]["cpu"].removesuffix("m")) <= 50


@pytest.mark.parametrize("name", gateways.MANIFESTS)
def test_an_implementation_names_its_class_and_its_gateway_alike(name: gateways.Implementation) -> None:
    path = gateways.MANIFESTS[name]
    assert [item["metadata"]["name"] for item in objects(path, "GatewayClass")] == [name]
    gateway = gateways.manifest(name)
    assert gateway["spec"]["gatewayClassName"] == name
    assert gateways.Gateway(name, "198.18.4.1:80").parent == gateway["metadata"]


def gateway(status: str, observed: int) -> dict[str, Any]:
    condition = {"type": "Programmed", "status": status, "observedGeneration": observed}
    return {"metadata": {"generation": 2}, "status": {"conditions": [condition]}}


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (None, False),
        ({"metadata": {"generation": 2}}, False),
        (gateway("True", 2), True),
        (gateway("True", 1), False),
        (gateway("Unknown", 2), False),
    ],
)
def test_a_gateway_is_programmed_when_its_own_generation_is(seen: dict[str, Any] | None, *, expected: bool) -> None:
    assert gateways.is_programmed(seen) is expected


def test_an_image_that_only_some_tests_need_is_not_built_by_default() -> None:
    assert set(images.DEFAULT) < set(images.IMAGES)
    assert "gateways" not in images.DEFAULT


def test_a_program_in_an_image_comes_from_a_module() -> None:
    for name, module in images._PROGRAMS.items():
        dockerfile = (REPOSITORY / images.IMAGES[name]).read_text()
        assert f"COPY --from={module} " in dockerfile
        assert set(binaries.MODULES[module].programs) <= set(dockerfile.split())


def test_prometheus_reads_ports_named_metrics_of_pods_that_have_an_address() -> None:
    ports = [{"name": "http", "containerPort": 8000}, {"name": "metrics", "containerPort": 8002}]
    metadata = {"name": "magika-1", "namespace": "demo", "labels": {"app.kubernetes.io/name": "magika"}}
    pod = {"metadata": metadata, "spec": {"containers": [{"ports": ports}, {}]}, "status": {"podIP": "198.18.8.4"}}
    [group] = targets([pod, {**pod, "status": {}}])
    assert group["targets"] == ["198.18.8.4:8002"]
    assert group["labels"] == {"app_kubernetes_io_name": "magika", "namespace": "demo", "pod": "magika-1"}
