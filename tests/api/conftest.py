"""One real API server for all tests of this folder, and the CRD installed in it."""

from __future__ import annotations

import fcntl
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from kubernetes_asyncio import client, config

from conch.api.kinds import INFERENCE_SERVICE
from tests.api.server import Server
from tests.cluster import Cluster, binaries
from tests.support.kube import Kube, KubectlError
from tests.support.wait import until


@pytest.fixture(scope="session")
def api_server() -> Path:
    """Return the administrator's kubeconfig of a control plane without nodes.

    It stays up, so that the next run starts at once; `python -m tests.cluster down --name conch-api` ends it.
    """
    cluster = Cluster("conch-api")
    cluster.up(nodes=0, kwok=True)
    return cluster.kubeconfig


@pytest.fixture(scope="module")
def cluster(api_server: Path) -> Iterator[Cluster]:
    """That control plane, for one file of tests at a time: an operator acts on all that there is."""
    cluster = Cluster("conch-api")
    with api_server.with_name("operator.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield cluster


@pytest.fixture(scope="module")
def kube(cluster: Cluster) -> Iterator[Kube]:
    with Kube(binaries.program("kubectl"), cluster.kubeconfig) as kube:
        kube.run("apply", "--server-side", "--force-conflicts", "--filename=crds/")
        kube.run("wait", "--for=condition=Established", "crd/inferenceservices.conch.dev", "--timeout=30s")
        until(lambda: _lists(kube), "the API server serves the CRD that was just applied", 30)
        yield kube


def _lists(kube: Kube) -> bool:
    """Whether services can be listed: for a moment after its CRD has changed a storage only answers 429."""
    try:
        kube.list(INFERENCE_SERVICE)
    except KubectlError:
        return False
    return True


@pytest.fixture
def namespace(kube: Kube, request: pytest.FixtureRequest) -> Iterator[str]:
    name = request.node.name.replace("_", "-")[:50].rstrip("-") + f"-{int(time.time()) % 100000}"
    kube.run("create", "namespace", name)
    yield name
    kube.run("delete", "namespace", name, "--wait=false")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "operator.log"


@pytest.fixture
async def server(api_server: Path) -> AsyncIterator[Server]:
    configuration = client.Configuration()
    await config.load_kube_config(config_file=str(api_server), client_configuration=configuration)
    async with client.ApiClient(configuration) as connection:
        server = Server(connection)
        await server.install()
        yield server
