"""The connection of a command to the cluster, and the errors of its calls."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from conch.api import InferenceService
from conch.api.kinds import INFERENCE_SERVICE, Ref
from conch.cli.options import Access, CommandError
from conch.write.errors import CallError
from conch.write.user import UserServer

# Field manager of all writes of these commands.
MANAGER: Final = "kubectl-conch"

T = TypeVar("T")
ClusterCall = Callable[["Cluster"], Awaitable[T]]


@dataclass(frozen=True)
class Cluster:
    """An open connection, and the namespace of the command."""

    server: UserServer
    namespace: str

    async def get_service(self, name: str) -> tuple[InferenceService, dict[str, Any]]:
        """Return a service, parsed and as a JSON object.

        Raises:
            CommandError: there is none, or this version cannot parse it.
        """
        body = await self.server.get(self.namespace, Ref(INFERENCE_SERVICE, name))
        if body is None:
            raise CommandError(
                f"there is no InferenceService {name} in namespace {self.namespace};"
                f" see: kubectl get inferenceservices --all-namespaces"
            )
        try:
            return InferenceService.parse(body), body
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors()[0]["loc"])
            message = f"this kubectl-conch cannot read {where} of {name}; install the version of the operator"
            raise CommandError(message) from error


def run_with_cluster(access: Access, call: ClusterCall[T]) -> T:
    """Return the result of a call with a connection to the cluster.

    Raises:
        CommandError: the cluster cannot be reached, or rejects a request.
    """
    return asyncio.run(_run(access, call))


async def _run(access: Access, call: ClusterCall[T]) -> T:
    try:
        async with await UserServer.as_user(access.kubeconfig, access.context) as server:
            return await call(Cluster(server, access.namespace or server.namespace))
    except CallError as error:
        raise CommandError(describe_error(error)) from error


def describe_error(error: CallError) -> str:
    """Return the message of a failed call, and what to do."""
    remedy = {
        0: "",  # the message has it
        401: "; log in to the cluster again",
        404: "; is Conch's CustomResourceDefinition installed in this cluster?",
        403: "; request that permission from the administrator of the cluster",
        409: "; another client changed it meanwhile: check it, and repeat the command",
    }.get(error.code, "")
    return f"{error.message}{remedy}"
