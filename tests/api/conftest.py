"""A real API server for the tests of each worker, and the CRD installed in it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import IO, Any, Final

import pytest
from kubernetes_asyncio import client, config

from conch.api.kinds import INFERENCE_SERVICE, NAMESPACE
from tests.api.operator import install_crd, read_writes
from tests.api.server import Server
from tests.cluster import Cluster, clients
from tests.cluster.paths import state_root
from tests.support.kube import Kube
from tests.support.place import build_name
from tests.support.wait import record_wait

_MOST_WRITES: Final = 300  # of a failed test's
_PREFIX: Final = f"{os.environ.get('CONCH_CLUSTER', 'conch')}-api"


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, worker_id: str) -> Iterator[Cluster]:
    """A control plane without nodes. Each worker has its own: an operator acts on all services of its cluster.

    It is taken down at the end, unless --keep-clusters is set.
    """
    cluster = Cluster(_PREFIX if worker_id == "master" else f"{_PREFIX}-{worker_id}")
    with _lock(cluster) as lock:  # another run may have it
        fcntl.flock(lock, fcntl.LOCK_EX)
        with record_wait("the API server is up"):
            cluster.up(nodes=0, kwok=True)
        yield cluster
        if not request.config.getoption("--keep-clusters"):
            cluster.down()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Add the last writes in a failed test's namespace to its report: the audit log goes with the cluster."""
    report: Any = yield
    cluster, namespace = (getattr(item, "funcargs", {}).get(name) for name in ("cluster", "namespace"))
    if report.failed and isinstance(cluster, Cluster) and isinstance(namespace, str):
        writes = list(read_writes(cluster.audit_log, namespace))
        report.sections.append(("writes in the namespace", "\n".join(writes[-_MOST_WRITES:])))
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Take down what workers left that were ended before their own end: by Ctrl-C, or by a crash."""
    if hasattr(session.config, "workerinput") or session.config.getoption("--keep-clusters"):
        return
    for plan in state_root().glob(f"{_PREFIX}-gw*/plan.json"):
        cluster = Cluster(plan.parent.name)
        with _lock(cluster) as lock, contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            cluster.down()


def _lock(cluster: Cluster) -> IO[str]:
    return (Path(tempfile.gettempdir()) / f"{cluster.name}.lock").open("w")


@pytest.fixture(scope="session")
def kube(cluster: Cluster) -> Iterator[Kube]:
    """The worker's API server, with the CRD in force."""
    with Kube(clients.program("kubectl"), cluster.kubeconfig) as kube:
        install_crd(kube)
        asyncio.run(_install(cluster.kubeconfig))
        yield kube


async def _install(kubeconfig: Path) -> None:
    configuration = await _configuration(kubeconfig)
    async with client.ApiClient(configuration) as connection:
        await Server(connection).install()


async def _configuration(kubeconfig: Path) -> client.Configuration:
    configuration = client.Configuration()
    await config.load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
    return configuration


@pytest.fixture
def namespace(kube: Kube, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"{build_name(request.node.name)[:50]}-{int(time.time()) % 100000}"
    kube.create(NAMESPACE, {"metadata": {"name": name}})
    yield name
    kube.delete_all(INFERENCE_SERVICE, name)  # at once; the namespace's own end takes longer, and the next test begins
    kube.delete(NAMESPACE, "", name)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "operator.log"


@pytest.fixture
async def server(cluster: Cluster, kube: Kube) -> AsyncIterator[Server]:
    """The API server as kubectl speaks to it, with the CRD in force."""
    del kube  # it has installed the CRD
    async with client.ApiClient(await _configuration(cluster.kubeconfig)) as connection:
        yield Server(connection)
