"""Executes a plan: its steps in order, the actions of a step concurrently."""

import asyncio
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

import structlog

from conch.api.child_kinds import child_kind
from conch.api.kinds import INFERENCE_SERVICE, METADATA_ONLY, Kind, Ref, ServiceKey
from conch.api.names import FIELD_MANAGER
from conch.api.reasons import Reason
from conch.api.reduction import reductions
from conch.api.status import NOT_OBSERVED
from conch.observe.compare import fingerprint
from conch.observe.fields import unreadable_quantities, value_at
from conch.observe.identity import controller_uid, is_orphan, owner_words
from conch.plan import Action, Adopt, Apply, ApplyRejected, Assign, Delete, Release, Step
from conch.plan.actions import reject_taken_name
from conch.write.errors import UNANSWERED, CallError
from conch.write.lists import Listing, list_objects
from conch.write.server import Server
from conch_contract import names

_HANDOVER: Final = "conch-handover"  # owns a Deployment's replicas between Conch and the autoscaler

# structured-merge-diff: ".spec.metrics[0].resource.target.value: expected numeric (int or float), got string".
_TYPE: Final = re.compile(r"((?P<path>\.\S+): expected [^,]+, )got [^\n]*")
_QUANTITY: Final = "quantities must match the regular expression"
_SHOWN: Final = 100  # characters of a value

_log = structlog.get_logger("conch.reconcile")

Store = Callable[[Mapping[str, Any]], object]


class Writer:
    """Writes plans and statuses; calls `store` with each object that the API server returns, before its watch event."""

    def __init__(self, server: Server, store: Store) -> None:
        self._server = server
        self._store = store
        self._reduced: dict[
            ServiceKey, tuple[str, int]
        ] = {}  # rejected statuses: fingerprint, and the index of the reduction that was accepted

    def forget(self, key: ServiceKey) -> None:
        """Drop the state of a service that is gone."""
        self._reduced.pop(key, None)

    async def execute(self, key: ServiceKey, owner_uid: str, steps: Sequence[Step]) -> list[ApplyRejected]:
        """Execute the steps in order. An action that needs an object whose write failed is left out.

        Returns:
            The writes that failed, in the order of the plan.
        """
        failures: list[ApplyRejected] = []
        missing: set[Ref] = set()
        for step in steps:
            due = [action for action in step if missing.isdisjoint(action.needs)]
            missing |= {action.ref for action in step if not missing.isdisjoint(action.needs)}
            acts = (self._execute_action(key, owner_uid, action) for action in due)
            answers = await asyncio.gather(*acts, return_exceptions=True)
            if broken := next((answer for answer in answers if isinstance(answer, BaseException)), None):
                raise broken
            failures += [answer for answer in answers if isinstance(answer, ApplyRejected)]
            missing |= {failure.ref for failure in failures}
            if any(failure.reason in UNANSWERED for failure in failures):
                break  # the API server does not answer, and each call may take its whole timeout
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
            self._store(found)

    async def list_children(self, namespace: str, kind: Kind, labels: Collection[str]) -> None:
        """Read the objects of a kind into the store whose label of a service has one of some values.

        Raises:
            CallError: the API server refuses, or does not answer.
        """
        selector = f"{names.LABEL_SERVICE} in ({','.join(sorted(labels))})"
        listing = Listing(kind, namespace, selector, metadata_only=kind in METADATA_ONLY)
        async with aclosing(list_objects(self._server, listing)) as found:
            async for body in found:
                self._store(body)

    async def write_status(self, key: ServiceKey, uid: str, status: Mapping[str, Any]) -> bool:
        """Write a service's status, reduced until the API server accepts it.

        Returns:
            Whether the service is still there.

        Raises:
            CallError: the API server rejects all of it, or does not answer.
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
                if error.is_not_found:
                    return False
                if not error.is_rejected or size + 1 == len(attempts):
                    raise
                size += 1
                _log.warning("status rejected, less of it is written", code=error.code, error=error.message)
        if size:
            self._reduced[key] = (stamp, size)
        else:
            self._reduced.pop(key, None)
        if written["metadata"]["uid"] == uid:
            self._store(written)
            return True
        # Deleted and created again meanwhile: an apply of a status ignores the uid. The new service starts unseen.
        self._store(await self._apply_status(key, {"observedGeneration": NOT_OBSERVED}))
        return False

    async def _apply_status(self, key: ServiceKey, status: Mapping[str, Any]) -> dict[str, Any]:
        body = {
            "apiVersion": INFERENCE_SERVICE.api_version,
            "kind": INFERENCE_SERVICE.name,
            "metadata": {"name": key.name, "namespace": key.namespace},
            "status": status,
        }
        return await self._server.apply_status(INFERENCE_SERVICE, body, FIELD_MANAGER)

    async def _execute_action(self, key: ServiceKey, owner_uid: str, action: Action) -> ApplyRejected | None:
        try:
            match action:
                case Delete(ref=ref, uid=uid):
                    await self._server.delete(key.namespace, ref, uid)
                case Release(ref=ref, manifest=manifest):
                    await self._server.apply(ref.kind, manifest, _HANDOVER)
                case Apply(new=True):
                    return await self._create(key, owner_uid, action)
                case Apply(ref=ref, manifest=manifest):
                    self._store(await self._server.apply(ref.kind, manifest, FIELD_MANAGER))
                case Assign(ref=ref, metadata=metadata):
                    self._store(await self._server.merge(key.namespace, ref, {"metadata": metadata}, FIELD_MANAGER))
                case Adopt(ref=ref, uid=uid, owner=owner):
                    body = {"metadata": {"uid": uid, "ownerReferences": [owner]}}
                    self._store(await self._server.merge(key.namespace, ref, body, FIELD_MANAGER))
        except CallError as error:
            if error.is_namespace_gone or (error.is_replaced and isinstance(action, Release | Adopt | Assign)):
                return None  # there is nothing left to write to
            return to_rejection(action, error)
        return None

    async def _create(self, key: ServiceKey, owner_uid: str, action: Apply) -> ApplyRejected | None:
        """Create an object; return a rejection if another owner has its name, whose object an apply would overwrite."""
        ref, manifest = action.ref, action.manifest
        try:
            written = await self._server.apply_new(ref.kind, manifest, FIELD_MANAGER)
        except CallError as error:
            there = await self._server.metadata(key.namespace, ref) if error.is_changed else None
            if there is None:
                raise
            if controller_uid(there) != owner_uid and not is_orphan(there, key.name):
                if owner_words(there) == f"{INFERENCE_SERVICE.name}/{key.name}":
                    raise  # of a service that was deleted and made again: the garbage collector is about to take it
                return reject_taken_name(ref, owner_words(there))
            written = await self._server.apply(ref.kind, manifest, FIELD_MANAGER)
        self._store(written)
        return None


# Reasons by the code of an answer.
_REASONS: Final[Mapping[int, str]] = {403: Reason.FORBIDDEN, 404: Reason.KIND_UNKNOWN}


def to_rejection(action: Action, error: CallError) -> ApplyRejected:
    """Return the rejection of an action, with the API server's message.

    It is final where the API server rejects the object at every attempt.
    """
    ref = action.ref
    if error.code == 404 and (not_installed := child_kind(ref.kind).not_installed) is not None:
        return ApplyRejected(ref, *not_installed)
    if error.code == 403 and "exceeded quota" in error.message:
        reason: str = Reason.QUOTA_EXCEEDED
    elif error.is_rejected:
        reason = Reason.INVALID if error.code != 403 else Reason.FORBIDDEN
    else:
        unanswered = error.reason or Reason.CALL_FAILED
        reason = _REASONS.get(error.code, unanswered)
    final = (error.is_rejected or error.code in {403, 404}) and not isinstance(action, Delete)
    if final:
        message = f"The API server refused {ref}: {_add_values(action, error.message)}"
    else:
        verb = {Delete: "delete", Adopt: "adopt"}.get(type(action), "write")
        code = f"HTTP status {error.code}: " if error.code else ""
        message = f"Conch cannot {verb} {ref}, and tries again: {code}{error.message}"
    return ApplyRejected(ref, reason, message, final, error.retry_after or 0.0)


def _add_values(action: Action, message: str) -> str:
    """Return the API server's message, with the values of the manifest where it names only a type, or no field."""
    manifest = action.manifest if isinstance(action, Apply) else None
    if manifest is None:
        return message
    detailed = _TYPE.sub(lambda found: f"{found[1]}got {_format_value(value_at(manifest, found['path']))}", message)
    if _QUANTITY in message:
        detailed += "".join(f"; {path} is {_format_value(value)}" for path, value in unreadable_quantities(manifest))
    return detailed


def _format_value(value: Any) -> str:
    return json.dumps(value)[:_SHOWN]
