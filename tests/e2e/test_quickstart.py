"""The first example, from apply to delete: what its user sees, and what no client can do to it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from tritonclient.utils import InferenceServerException

from conch.api.child_kinds import CHILDREN
from conch.api.kinds import CONTROLLER_REVISION, DEPLOYMENT, POD, SERVICE
from conch_contract import names
from tests.support import clients, examples, filetypes
from tests.support.kube import Kube
from tests.support.place import OPERATOR, SYSTEM, Place
from tests.support.service import Service, is_ready, restarts
from tests.support.wait import until


@pytest.fixture(scope="module")
def service(place: Place, shared_namespace: str) -> Service:
    """examples/quickstart.yaml as it stands, ready."""
    place.kube.apply(examples.FOLDER / "quickstart.yaml", shared_namespace)
    found = Service(place.kube, shared_namespace, "magika")
    found.until_ready()
    return found


@pytest.fixture
def addresses(place: Place, service: Service) -> Iterator[list[str]]:
    """host:port of HTTP and of gRPC, as clients in the cluster reach them."""
    with place.reach(service.namespace, service.name, names.HTTP_PORT, names.GRPC_PORT) as found:
        yield found


@pytest.mark.parametrize("sample", filetypes.samples())
def test_the_service_answers_over_http_and_grpc_as_the_model_does_elsewhere(sample: str, addresses: list[str]) -> None:
    content = filetypes.samples()[sample]
    inputs = {filetypes.INPUT: filetypes.features(content)}
    for answer in (
        clients.infer_http(addresses[0], "magika", inputs),
        clients.infer_grpc(addresses[1], "magika", inputs),
    ):
        label, score = filetypes.label(answer[filetypes.OUTPUT])
        assert label == filetypes.expected(content)
        assert score > 0.9


def test_the_status_has_what_is_served(service: Service) -> None:
    status = service.status
    assert status["url"] == f"http://magika.{service.namespace}.svc:8000"
    assert status["model"] == {"name": "magika"}
    assert status["ready"] == "2/2"
    conditions = {c["type"]: c["status"] for c in status["conditions"]}
    assert conditions == {"Ready": "True", "Serving": "True", "RolloutComplete": "True"}
    [revision] = status["revisions"]
    assert (revision["name"], revision["phase"], revision["weight"]) == (status["stable"], "Ready", 100)
    assert revision["replicas"] == {"ready": 2, "desired": 2}
    # The status may be a moment behind the pods: they were ready before their first report.
    [model] = until(lambda: _served(service), "the status has what is served", seen=lambda: service.status)
    assert (model["name"], model["versions"]) == ("magika", [1])
    assert model["digest"].startswith("sha256:")


def _served(service: Service) -> list[dict[str, Any]]:
    models: list[dict[str, Any]] = service.status["revisions"][0].get("models", [])
    return models if all(model["state"] == "Ready" for model in models) else []


def test_kubectl_get_shows_it_in_one_line(service: Service, kube: Kube) -> None:
    head, line = kube.run("get", "isvc", f"--namespace={service.namespace}").splitlines()
    assert head.split() == ["NAME", "READY", "URL", "MODEL", "STABLE", "CANARY", "WEIGHT", "REPLICAS", "AGE"]
    assert line.split()[:2] == ["magika", "True"]
    assert line.split()[5] == "2/2"


def test_the_operator_writes_each_event_once(service: Service) -> None:
    service.until_event("Served")
    reasons = Counter(event["reason"] for event in service.events())
    assert reasons == {"RevisionCreated": 1, "Served": 1}


def test_no_client_controls_triton_through_the_service(addresses: list[str]) -> None:
    http, grpc = (over_http.InferenceServerClient(addresses[0]), over_grpc.InferenceServerClient(addresses[1]))
    allowed = [
        f"{name} over {protocol}"
        for protocol, client in (("HTTP", http), ("gRPC", grpc))
        for name, call in _controls(client).items()
        if _works(call)
    ]
    assert not allowed
    inputs = {filetypes.INPUT: filetypes.features(b"import os\n\nprint(os.name)\n" * 10)}
    assert filetypes.label(clients.infer_http(addresses[0], "magika", inputs)[filetypes.OUTPUT])[0] == "python"
    assert filetypes.label(clients.infer_grpc(addresses[1], "magika", inputs)[filetypes.OUTPUT])[0] == "python"


def _controls(client: Any) -> dict[str, Callable[[], Any]]:
    return {
        "repository index": client.get_model_repository_index,
        "load": lambda: client.load_model("magika"),
        "unload": lambda: client.unload_model("magika"),
        "shared memory status": client.get_system_shared_memory_status,
        "shared memory registration": lambda: client.register_system_shared_memory("mine", "/mine", 64),
        "trace settings": client.get_trace_settings,
        "trace change": lambda: client.update_trace_settings(settings={"trace_rate": "1"}),
        "log settings": client.get_log_settings,
        "log change": lambda: client.update_log_settings({"log_verbose_level": 1}),
    }


def _works(call: Callable[[], Any]) -> bool:
    """Whether a call is let through; a refusal names the restriction (gRPC) or is a 403 (HTTP)."""
    try:
        call()
    except InferenceServerException as error:
        return "restricted" not in str(error).lower() and str(error.status()) not in {"403", "401"}
    return True


def test_no_program_of_the_images_runs_with_the_rights_of_its_owner(service: Service, kube: Kube) -> None:
    serving = (service.namespace, service.ready_pods()[0]["metadata"]["name"], names.TRITON_CONTAINER)
    operator = (SYSTEM, f"deployment/{OPERATOR}", "operator")
    for namespace, pod, container in (serving, operator):
        find = "find / -xdev -type f -perm /6000 2> /dev/null; echo searched"
        where = (pod, f"--container={container}", f"--namespace={namespace}")
        assert kube.run("exec", *where, "--", "sh", "-c", find).split() == ["searched"]


@pytest.mark.parametrize("container", [names.TRITON_CONTAINER, names.AGENT_CONTAINER])
def test_a_container_that_dies_comes_back_with_its_model(container: str, service: Service, kube: Kube) -> None:
    victim = service.ready_pods()[0]["metadata"]["name"]
    service.end_container(victim, container)

    def pod() -> dict[str, Any]:
        assert service.condition("Serving").get("status") == "True"
        return kube.get(POD, service.namespace, victim) or {}

    def back() -> dict[str, Any] | None:
        seen = pod()
        return seen if restarts(seen)[container] == 1 and is_ready(seen) else None

    found = until(back, f"{victim} is ready again", seen=lambda: pod().get("status"))
    assert sum(restarts(found).values()) <= 2, "the other container was dragged along more than once"
    inputs = {filetypes.INPUT: filetypes.features(filetypes.samples()["dot.png"])}
    answer = clients.infer_http(f"{found['status']['podIP']}:{names.HTTP_PORT}", "magika", inputs)
    assert filetypes.label(answer[filetypes.OUTPUT])[0] == "png"
    service.until_ready()


def test_a_deployment_edited_by_hand_is_repaired(service: Service, kube: Kube, figure: Callable[[str], None]) -> None:
    revision = service.status["stable"]
    image = _triton(service.deployment(revision))["image"]
    change = {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 20}}, "progressDeadlineSeconds": 7}}
    kube.patch(DEPLOYMENT, service.namespace, revision, change)
    here = f"--namespace={service.namespace}"
    kube.run("set", "image", f"deployment/{revision}", f"{names.TRITON_CONTAINER}=conch.invalid/other:1", here)

    def repaired() -> bool:
        spec = service.deployment(revision)["spec"]
        right = spec["template"]["spec"]["terminationGracePeriodSeconds"] > 20 and spec["progressDeadlineSeconds"] > 7
        return bool(right and _triton({"spec": spec})["image"] == image)

    edited = time.monotonic()
    until(repaired, "the Deployment is as it was")
    figure(f"repaired {time.monotonic() - edited:.1f} s after the edit")
    service.settle()


def test_a_child_deleted_by_hand_comes_back(service: Service, kube: Kube, figure: Callable[[str], None]) -> None:
    revision = service.status["stable"]
    uid = (kube.get(SERVICE, service.namespace, revision) or {})["metadata"]["uid"]
    kube.delete(SERVICE, service.namespace, revision)

    def back() -> bool:
        found = kube.get(SERVICE, service.namespace, revision)
        return found is not None and found["metadata"]["uid"] != uid

    deleted = time.monotonic()
    until(back, f"the Service {revision} is there again")
    figure(f"there again {time.monotonic() - deleted:.1f} s after its deletion")


def _triton(deployment: dict[str, Any]) -> dict[str, Any]:
    containers = deployment["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = next(c for c in containers if c["name"] == names.TRITON_CONTAINER)
    return found


def test_the_deletion_of_a_service_removes_all_its_objects(service: Service) -> None:
    assert service.children(CONTROLLER_REVISION)
    service.delete()
    service.until_gone()
    until(lambda: not _left(service), "nothing is left", seen=lambda: _left(service))


def _left(service: Service) -> list[str]:
    kinds = (*CHILDREN, POD)
    return [f"{kind.name}/{child['metadata']['name']}" for kind in kinds for child in service.children(kind)]
