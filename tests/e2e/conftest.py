"""The cluster, Conch in it, a store and gateways, once for all workers of a run; a namespace for each story."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from conch.api.kinds import NAMESPACE, NODE
from tests.cluster.images import IMAGES
from tests.support import evidence, examples, gateways, store
from tests.support.gateways import Gateway, Implementation
from tests.support.gpus import Pretended
from tests.support.kube import SECRET, Kube
from tests.support.place import Place, attach_place, build_name, open_place
from tests.support.service import Service
from tests.support.shared import run_once
from tests.support.store import Store
from tests.support.wait import TIMEOUT, until

STORE = "conch-e2e-store"
REGISTRY = Path(__file__).parents[1] / "support" / "registry.yaml"
_SECONDS = 600  # for one story; a cold machine builds everything before the first one
_FIGURE = "figure"  # the name of a report's property: pytest-xdist carries it to the process that prints


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Count a story's time from its own beginning, not from that of the cluster."""
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_SECONDS, func_only=True))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what the stories measured, whether they passed or not."""
    reports = [report for key in ("passed", "failed") for report in terminalreporter.stats.get(key, ())]
    figures = [
        f"{report.location[2]}: {line}"
        for report in reports
        for name, text in report.user_properties
        if name == _FIGURE and report.when == "call"
        for line in text.splitlines()
    ]
    if figures:
        terminalreporter.section("figures")
        for line in figures:
            terminalreporter.line(line)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Show the evidence of a story that fails, while its objects still exist."""
    report: Any = yield
    if report.failed and report.when in {"setup", "call"}:
        values = getattr(item, "funcargs", {})
        if isinstance(place := values.get("place"), Place):
            report.sections += evidence.collect(place.kube, sorted(set(_namespaces(values))))
    return report


def _namespaces(values: Any, name: str = "") -> Iterator[str]:
    """Yield the namespaces of a test: those that its fixtures name, and those of the services in them."""
    match values:
        case str() if name.endswith("namespace"):
            yield values
        case Service():
            yield values.namespace
        case dict():
            for key, value in values.items():
                yield from _namespaces(value, str(key))
        case list() | tuple():
            for value in values:
                yield from _namespaces(value)


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Keep a measured figure for the end of the run."""

    def keep(text: str) -> None:
        request.node.user_properties.append((_FIGURE, text))

    return keep


@pytest.fixture(scope="session")
def place() -> Iterator[Place]:
    """The cluster, with Conch installed by its chart."""
    run_once("the cluster with Conch", _install)
    with attach_place() as place:
        yield place


def _install() -> None:
    with open_place(build=list(IMAGES)) as place:
        place.prepare()
        place.install()


@pytest.fixture(scope="session")
def kube(place: Place) -> Kube:
    return place.kube


@pytest.fixture(scope="session")
def audit_from(place: Place) -> int:
    """Where the audit log stood when the first story of the run began, in bytes."""
    assert place.local is not None
    log = place.local.audit_log
    return run_once("the start of the audit log", lambda: log.stat().st_size)


@pytest.fixture(scope="session", autouse=True)
def bucket(place: Place, audit_from: int) -> Store:
    """The store with the models that the examples name, and others to change to."""
    del audit_from  # first of all
    return Store(STORE, run_once("the store", lambda: _fill_store(place)))


def _fill_store(place: Place) -> str:
    """Start the store and upload all models; return its address."""
    place.namespace(STORE)
    assert place.local is not None
    store.deploy(place.kube, STORE, node=place.local.plan.nodes[0].name)
    with place.reach(STORE, "store", store.PORT) as [address]:
        found = store.reach(STORE, address)
        examples.upload(found)
        place.kube.apply(REGISTRY, STORE)
        place.kube.run("rollout", "status", "deployment/registry", f"--namespace={STORE}", TIMEOUT)
        with (
            place.reach(STORE, "registry", 5000) as [registry],
            place.reach(STORE, "store", store.FILES_PORT) as [files],
        ):
            examples.push(registry, files)
            examples.push_image(registry)
            place.local.add_registry("registry:5000", f"http://{registry}")
        for factor in (2, 3):
            found.upload(f"s3://models/times-{factor}", {"model.py": examples.MODELS / "double" / "model.py"})
        return address


@pytest.fixture(scope="session")
def gateway(place: Place, request: pytest.FixtureRequest) -> Gateway:
    """A Gateway that admits routes from everywhere: Envoy Gateway's, unless a story names another."""
    name: Implementation = getattr(request, "param", "envoy")
    return Gateway(name, run_once(f"the gateway {name}", lambda: gateways.deploy(place, name).address))


MakeNamespace = Callable[[str], "contextlib.AbstractContextManager[str]"]


@pytest.fixture(scope="session")
def make_namespace(place: Place, bucket: Store) -> MakeNamespace:
    """Make a namespace that admits restricted pods only, with the Secret of the store; it goes afterwards."""

    @contextlib.contextmanager
    def make(name: str) -> Iterator[str]:
        if place.kube.get(NAMESPACE, "", name):  # an earlier run was cut off
            place.kube.delete(NAMESPACE, "", name)
            until(lambda: not place.kube.get(NAMESPACE, "", name), f"namespace {name} is gone")
        place.namespace(name)
        place.kube.create(SECRET, bucket.secret(), name)
        try:
            yield name
        finally:
            place.kube.delete(NAMESPACE, "", name)

    return make


@pytest.fixture
def namespace(request: pytest.FixtureRequest, make_namespace: MakeNamespace) -> Iterator[str]:
    """A namespace of the test's own."""
    with make_namespace(build_name(f"e2e-{request.node.name.removeprefix('test_')}")) as name:
        yield name


@pytest.fixture(scope="module")
def shared_namespace(request: pytest.FixtureRequest, make_namespace: MakeNamespace) -> Iterator[str]:
    """A namespace that the tests of a file share."""
    with make_namespace(build_name(f"e2e-{request.node.path.stem.removeprefix('test_')}")) as name:
        yield name


@pytest.fixture
def gpus(kube: Kube) -> Iterator[Pretended]:
    """One pretended GPU, on one node."""
    pretended = Pretended(kube, min(node["metadata"]["name"] for node in kube.list(NODE)))
    pretended.are(1)
    try:
        yield pretended
    finally:
        pretended.are_no_more()


@pytest.fixture
def serve(kube: Kube, namespace: str) -> Callable[..., Service]:
    """Make a service of magika (or of the predictor's fields) in the test's namespace."""

    def make(name: str, **predictor: Any) -> Service:
        kube.apply(manifest(name, **predictor), namespace)
        return Service(kube, namespace, name)

    return make


def manifest(name: str, **predictor: Any) -> dict[str, Any]:
    """Return a service: magika from the store, with the predictor's fields added or replaced."""
    model = {
        "modelFormat": {"name": "onnx"},
        "storageUri": "s3://models/magika",
        "storage": {"secretRef": {"name": "s3"}},
    }
    fields = {"model": model, **predictor}
    return {
        "apiVersion": "conch.dev/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": name},
        "spec": {"predictor": fields},
    }
