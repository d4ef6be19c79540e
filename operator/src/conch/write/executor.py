"""Carries a plan out: step by step, the actions of a step together."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import structlog

from conch.api.kinds import HTTP_ROUTE, INFERENCE_SERVICE, SCALED_OBJECT, ServiceKey
from conch.api.names import FIELD_MANAGER
from conch.api.reduction import reductions
from conch.api.status import NOT_OBSERVED
from conch.observe.compare import fingerprint
from conch.observe.identity import controller_uid, owner_words
from conch.plan import Action, Apply, Delete, Refusal, Release, Step
from conch.plan.actions import taken
from conch.write.errors import CallError
from conch.write.server import Server

_HANDOVER: Final = "conch-handover"  # owns a Deployment's replicas from us to the HPA

_log = structlog.get_logger("conch.reconcile")

Seen = Callable[[Mapping[str, Any]], object]


class Writer:
    """Writes plans and statuses; tells `seen` what the API server answered, so that the store is never behind."""

    def __init__(self, server: Server, seen: Seen) -> None:
        self._server = server
        self._seen = seen
        self._reduced: dict[ServiceKey, tuple[str, int]] = {}  # statuses that were rejected, and what was taken

    async def carry_out(self, key: ServiceKey, owner_uid: str, steps: Sequence[Step]) -> list[Refusal]:
        """Write the steps in order. After a refusal the steps that build on it are not begun.

        Returns:
            What the API server will not have, whoever asks again.

        Raises:
            CallError: a call failed in a way that another attempt may mend.
        """
        for step in steps:
            answers = await asyncio.gather(
                *(self._act(key, owner_uid, action) for action in step), return_exceptions=True
            )
            refusals = [answer for answer in answers if isinstance(answer, Refusal)]
            errors = [answer for answer in answers if isinstance(answer, BaseException)]
            if errors:
                raise errors[0]
            if refusals:
                return refusals
        return []

    async def write_status(self, key: ServiceKey, uid: str, status: Mapping[str, Any]) -> bool:
        """Write a service's whole status, or as much of it as the API server takes.

        Returns:
            Whether the service is still there.

        Raises:
            CallError: the API server takes nothing of it, or could not be asked.
        """
        attempts = [status, *reductions(status)]
        stamp = fingerprint(status)
        known, size = self._reduced.get(key, ("", 0))
        size = size if known == stamp else 0  # what was rejected before is not sent again
        while True:
            try:
                written = await self._apply_status(key, attempts[size])
                break
            except CallError as error:
                if error.gone:
                    return False
                if not error.rejected or size + 1 == len(attempts):
                    raise
                size += 1
                _log.warning("status rejected, less of it is written", code=error.code, error=error.message)
        if size:
            self._reduced[key] = (stamp, size)
        else:
            self._reduced.pop(key, None)
        if written["metadata"]["uid"] == uid:
            self._seen(written)
            return True
        # Deleted and created again meanwhile: an apply of a status ignores the uid. The new service starts unseen.
        self._seen(await self._apply_status(key, {"observedGeneration": NOT_OBSERVED}))
        return False

    async def _apply_status(self, key: ServiceKey, status: Mapping[str, Any]) -> dict[str, Any]:
        body = {
            "apiVersion": INFERENCE_SERVICE.api_version,
            "kind": INFERENCE_SERVICE.name,
            "metadata": {"name": key.name, "namespace": key.namespace},
            "status": status,
        }
        return await self._server.apply_status(INFERENCE_SERVICE, body, FIELD_MANAGER)

    async def _act(self, key: ServiceKey, owner_uid: str, action: Action) -> Refusal | None:
        try:
            match action:
                case Delete(ref, uid):
                    await self._server.delete(key.namespace, ref, uid)
                case Release(ref, manifest):
                    await self._server.apply(ref.kind, manifest, _HANDOVER)
                case Apply(ref, manifest, new):
                    if new and (refusal := await self._stranger(key, owner_uid, action)):
                        return refusal
                    self._seen(await self._server.apply(ref.kind, manifest, FIELD_MANAGER))
        except CallError as error:
            if error.namespace_gone or (error.replaced and isinstance(action, Release)):
                return None  # there is nothing left to write to
            if (error.rejected or error.code in {403, 404}) and not isinstance(action, Delete):
                return _refusal(action, error)
            raise
        return None

    async def _stranger(self, key: ServiceKey, owner_uid: str, action: Apply) -> Refusal | None:
        """Whether a name that we need is taken: a forced apply would take the object from its owner."""
        there = await self._server.metadata(key.namespace, action.ref)
        if there is None or controller_uid(there) == owner_uid:
            return None
        return taken(action.ref, owner_words(there))


def _refusal(action: Apply | Release, error: CallError) -> Refusal:
    if error.code == 404 and action.ref.kind == HTTP_ROUTE:
        message = (
            f"The cluster knows no {action.ref.kind.name}; install the CRDs of the Gateway API (v1) and a gateway,"
            " or remove traffic.gateways and traffic.hostnames."
        )
        return Refusal(action.ref, "GatewayApiMissing", message)
    if error.code == 404 and action.ref.kind == SCALED_OBJECT:
        message = (
            "The cluster knows no ScaledObject, and Conch was installed with autoscaling.metricsApi keda; install"
            " KEDA 2, or install Conch with another metricsApi."
        )
        return Refusal(action.ref, "KedaMissing", message)
    if error.code == 403 and "exceeded quota" in error.message:
        reason = "QuotaExceeded"
    else:
        reason = {403: "Forbidden", 404: "KindUnknown"}.get(error.code, "Invalid")
    return Refusal(action.ref, reason, f"The API server refused {action.ref}: {error.message}")
