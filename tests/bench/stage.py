"""What each measurement begins with: a controller without work, and a namespace whose children are watched."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from conch.write import Server
from tests.api.operator import install_crd
from tests.bench.controllers import Controller, Program, running
from tests.bench.services import Children, connect, new_namespace, watch_children
from tests.cluster import Cluster, clients
from tests.support.kube import Kube


@dataclass(frozen=True)
class Stage:
    """A controller that has started, the namespace, the user's connection, and the children as they come."""

    controller: Controller
    namespace: str
    server: Server
    children: Children


def cluster_named(name: str) -> Cluster:
    """Return the cluster whose name ends with `name`, and begins with that of the environment."""
    return Cluster(f"{os.environ.get('CONCH_CLUSTER', 'conch')}-{name}")


def open_cluster(name: str = "api") -> Cluster:
    """Bring up a control plane and fake nodes, with the CRD; the cluster's name ends with `name`."""
    cluster = cluster_named(name)
    cluster.up(nodes=0, kwok=True)
    with Kube(clients.program("kubectl"), cluster.kubeconfig) as kube:
        install_crd(kube)
    return cluster


@asynccontextmanager
async def open_namespace(program: Program, cluster: Cluster) -> AsyncIterator[tuple[Server, str, Children]]:
    """A connection, and an empty namespace of its own for a program, watched."""
    async with (
        await connect(cluster) as server,
        new_namespace(server, program.name.lower()) as namespace,
        watch_children(server, namespace) as children,
    ):
        yield server, namespace, children


@asynccontextmanager
async def open_stage(program: Program, cluster: Cluster) -> AsyncIterator[Stage]:
    """Start a controller; in the end it is ended, and then its namespace is deleted."""
    async with open_namespace(program, cluster) as (server, namespace, children):
        with running(program, cluster, namespace) as controller:
            await controller.wait_started()
            yield Stage(controller, namespace, server, children)
