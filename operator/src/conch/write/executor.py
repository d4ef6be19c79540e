"""Carries a plan out: step by step, the actions of a step together."""

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import structlog

from conch.api.child_kinds import child_kind
from conch.api.kinds import INFERENCE_SERVICE, Ref, ServiceKey
from conch.api.names import FIELD_MANAGER
from conch.api.reduction import reductions
from conch.api.status import NOT_OBSERVED
from conch.observe.compare import fingerprint
from conch.observe.fields import unreadable_quantities, value_at
from conch.observe.identity import controller_uid, is_orphan, owner_words
from conch.plan import Action, Adopt, Apply, Delete, Refusal, Release, Step
from conch.plan.actions import taken
from conch.write.errors import UNANSWERED, CallError
from conch.write.server import Server

_HANDOVER: Final = "conch-handover"  # owns a Deployment's replicas from us to the HPA

# structured-merge-diff: ".spec.metrics[0].resource.target.value: expected numeric (int or float), got string".
_TYPE: Final = re.compile(r"((?P<path>\.\S+): expected [^,]+, )got [^\n]*")
_QUANTITY: Final = "quantities must match the regular expression"
_SHOWN: Final = 100  # characters of a value

_log = structlog.get_logger("conch.reconcile")

Seen = Callable[[Mapping[str, Any]], object]


class Writer:
    """Writes plans and statuses; tells `seen` what the API server answered, so that the store is never behind."""

    def __init__(self, server: Server, seen: Seen) -> None:
        self._server = server
        self._seen = seen
        self._reduced: dict[ServiceKey, tuple[str, int]] = {}  # statuses that were rejected, and what was taken

    def forget(self, key: ServiceKey) -> None:
        """Forget a service that is gone."""
        self._reduced.pop(key, None)

    async def carry_out(self, key: ServiceKey, owner_uid: str, steps: Sequence[Step]) -> list[Refusal]:
        """Write the steps in order. What needs an object whose write failed is not written; everything else is.

        Returns:
            The writes that failed, in the order of the plan.
        """
        failures: list[Refusal] = []
        missing: set[Ref] = set()
        for step in steps:
            due = [action for action in step if missing.isdisjoint(action.needs)]
            missing |= {action.ref for action in step if not missing.isdisjoint(action.needs)}
            acts = (self._act(key, owner_uid, action) for action in due)
            answers = await asyncio.gather(*acts, return_exceptions=True)
            if broken := next((answer for answer in answers if isinstance(answer, BaseException)), None):
                raise broken
            failures += [answer for answer in answers if isinstance(answer, Refusal)]
            missing |= {failure.ref for failure in failures}
            if any(failure.reason in UNANSWERED for failure in failures):
                break  # no call has an answer now, and each may take its whole time
        return failures

    async def metadata(self, key: ServiceKey, ref: Ref) -> Mapping[str, Any] | None:
        """Return the metadata of a child, managedFields included; None if there is no such object, or no answer."""
        try:
            found = await self._server.metadata(key.namespace, ref)
        except CallError as error:
            _log.warning("managed fields not read", object=str(ref), error=error.message)
            return None
        return found["metadata"] if found else None

    async def read(self, key: ServiceKey, ref: Ref) -> None:
        """Read an object of a service into the store."""
        try:
            found = await self._server.get(key.namespace, ref)
        except CallError as error:
            _log.warning("object not read", object=str(ref), error=error.message)
            return
        if found is not None:
            self._seen(found)

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
                case Delete(ref=ref, uid=uid):
                    await self._server.delete(key.namespace, ref, uid)
                case Release(ref=ref, manifest=manifest):
                    await self._server.apply(ref.kind, manifest, _HANDOVER)
                case Apply(ref=ref, manifest=manifest, new=new):
                    if new and (refusal := await self._stranger(key, owner_uid, action)):
                        return refusal
                    self._seen(await self._server.apply(ref.kind, manifest, FIELD_MANAGER))
                case Adopt(ref=ref, uid=uid, owner=owner):
                    body = {"metadata": {"uid": uid, "ownerReferences": [owner]}}
                    self._seen(await self._server.merge(key.namespace, ref, body, FIELD_MANAGER))
        except CallError as error:
            if error.namespace_gone or (error.replaced and isinstance(action, Release | Adopt)):
                return None  # there is nothing left to write to
            return refusal_of(action, error)
        return None

    async def _stranger(self, key: ServiceKey, owner_uid: str, action: Apply) -> Refusal | None:
        """Whether a name that we need is taken: a forced apply would take the object from its owner."""
        there = await self._server.metadata(key.namespace, action.ref)
        if there is None or controller_uid(there) == owner_uid or is_orphan(there, key.name):
            return None
        return taken(action.ref, owner_words(there))


def refusal_of(action: Action, error: CallError) -> Refusal:
    """Return why an action is not done, in the API server's words.

    It is final where the API server does not take the object, however often it is sent.
    """
    ref = action.ref
    if error.code == 404 and (not_installed := child_kind(ref.kind).not_installed) is not None:
        return Refusal(ref, *not_installed)
    if error.code == 403 and "exceeded quota" in error.message:
        reason = "QuotaExceeded"
    elif error.rejected:
        reason = "Invalid" if error.code != 403 else "Forbidden"
    else:
        reason = {403: "Forbidden", 404: "KindUnknown"}.get(error.code, error.reason or "CallFailed")
    final = (error.rejected or error.code in {403, 404}) and not isinstance(action, Delete)
    if final:
        message = f"The API server refused {ref}: {_words(action, error.message)}"
    else:
        verb = {Delete: "delete", Adopt: "adopt"}.get(type(action), "write")
        code = f"HTTP status {error.code}: " if error.code else ""
        message = f"Conch cannot {verb} {ref}, and tries again: {code}{error.message}"
    return Refusal(ref, reason, message, final, error.retry_after or 0.0)


def _words(action: Action, message: str) -> str:
    """Return the API server's words with what the manifest holds where they name a type alone, or no field at all."""
    manifest = action.manifest if isinstance(action, Apply) else None
    if manifest is None:
        return message
    told = _TYPE.sub(lambda found: f"{found[1]}got {_shown(value_at(manifest, found['path']))}", message)
    if _QUANTITY in message:
        told += "".join(f"; {path} is {_shown(value)}" for path, value in unreadable_quantities(manifest))
    return told


def _shown(value: Any) -> str:
    return json.dumps(value)[:_SHOWN]
