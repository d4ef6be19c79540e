"""The way to the cluster: one connection for a command, and errors as sentences."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from conch.api import InferenceService
from conch.api.kinds import INFERENCE_SERVICE, Ref
from conch.cli.options import Access, Refused
from conch.write.errors import CallError
from conch.write.user import UserServer

# Who the API server says has written what these commands write.
MANAGER: Final = "kubectl-conch"

T = TypeVar("T")
Question = Callable[["Cluster"], Awaitable[T]]


@dataclass(frozen=True)
class Cluster:
    """An open connection, and the namespace that is meant."""

    server: UserServer
    namespace: str

    async def service(self, name: str) -> tuple[InferenceService, dict[str, Any]]:
        """Read a service, parsed and as it came.

        Raises:
            Refused: there is none, or it says what this version does not know.
        """
        body = await self.server.get(self.namespace, Ref(INFERENCE_SERVICE, name))
        if body is None:
            raise Refused(
                f"there is no InferenceService {name} in namespace {self.namespace};"
                f" see: kubectl get inferenceservices --all-namespaces"
            )
        try:
            return InferenceService.parse(body), body
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors()[0]["loc"])
            told = f"this kubectl-conch cannot read {where} of {name}; take the version that the operator has"
            raise Refused(told) from error


def ask(access: Access, question: Question[T]) -> T:
    """Connect, ask, and hang up.

    Raises:
        Refused: the cluster cannot be reached, or says no.
    """
    return asyncio.run(_ask(access, question))


async def _ask(access: Access, question: Question[T]) -> T:
    try:
        async with await UserServer.as_user(access.kubeconfig, access.context) as server:
            return await question(Cluster(server, access.namespace or server.namespace))
    except CallError as error:
        raise Refused(sentence(error)) from error


def sentence(error: CallError) -> str:
    """Say what a call failed for, and what to do."""
    remedy = {
        0: "",  # says it already
        401: "; log in to the cluster again",
        404: "; is Conch's CustomResourceDefinition installed in this cluster?",
        403: "; ask whoever runs the cluster for that right",
        409: "; somebody changed it meanwhile: look again, and repeat",
    }.get(error.code, "")
    return f"{error.message}{remedy}"
