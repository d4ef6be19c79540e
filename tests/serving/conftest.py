"""The store for the session, a pod for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import magika
import pytest

from tests.serving.kubelet import Kubelet
from tests.serving.pod import Pod
from tests.serving.store import Store
from tests.support.relay import Relay


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = Store(tmp_path_factory.mktemp("store"))
    yield store
    store.process.kill()


@pytest.fixture(autouse=True)
def delete_objects(request: pytest.FixtureRequest) -> Iterator[None]:
    """Delete what a test has uploaded: the tests of a worker have one store, and some have the same prefixes."""
    if "store" not in request.fixturenames:
        yield
        return
    store: Store = request.getfixturevalue("store")
    count = len(store.objects)
    yield
    store.delete_since(count)


@pytest.fixture
def line(store: Store) -> Iterator[Relay]:
    """A line to the store."""
    relay = Relay(store.port)
    yield relay
    relay.close()


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    pod = Pod(tmp_path / "conch")
    yield pod
    pod.stop()


@pytest.fixture
def kubelet(pod: Pod) -> Iterator[Kubelet]:
    kubelet = Kubelet(pod)
    yield kubelet
    kubelet.stop()


@pytest.fixture(scope="session")
def magika_onnx() -> Path:
    """A real model: Google's file-type detector."""
    return Path(magika.__file__).parent / "models" / "standard_v3_3" / "model.onnx"
