"""One real API server for all tests of this folder, and the CRD installed in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kubernetes_asyncio import client, config

from tests.api.server import Server
from tests.cluster import Cluster


@pytest.fixture(scope="session")
def api_server() -> Path:
    """Return the administrator's kubeconfig of a control plane without nodes.

    It stays up, so that the next run starts at once; `python -m tests.cluster down --name conch-api` ends it.
    """
    cluster = Cluster("conch-api")
    cluster.up(nodes=0, kwok=True)
    return cluster.kubeconfig


@pytest.fixture
async def server(api_server: Path) -> AsyncIterator[Server]:
    configuration = client.Configuration()
    await config.load_kube_config(config_file=str(api_server), client_configuration=configuration)
    async with client.ApiClient(configuration) as connection:
        server = Server(connection)
        await server.install()
        yield server
