"""Leader election: one replica holds a Lease, and only it reconciles.

The rules are those of client-go's package leaderelection. Clocks of two machines are never compared: a Lease has
expired when a replica has seen no change of it for its duration. Why not kubernetes_asyncio's election: it renews
without a timeout, so that two replicas act while one call hangs, and any refused connection ends it.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

import structlog

from conch.api.kinds import LEASE, Ref
from conch.api.names import FIELD_MANAGER
from conch.observe.installation import Scope
from conch.shutdown import RestartError
from conch.write.conflicts import CONFLICT, retry_on_conflict
from conch.write.errors import CallError
from conch.write.server import Server

_NOT_FOUND: Final = 404
_RELEASED: Final = 1  # seconds that a Lease lasts whose holder has resigned, as client-go writes it
_log = structlog.get_logger("conch")

Lease = Mapping[str, Any] | None
"""A Lease as read or written; None: there is none."""


@dataclass(frozen=True)
class Terms:
    """How long a Lease lasts, and how often it is renewed; all in seconds.

    Another replica leads at most `duration` + `retry` after the leader crashed, and `retry` after it resigned.
    """

    duration: float = 13  # after its last renewal a standby replica takes the Lease
    deadline: float = 11  # after its last renewal the leader stops; shorter than `duration`
    retry: float = 2  # between two attempts
    timeout: float = 5  # of one attempt; two fit into `deadline`, as in client-go


class LeaseLostError(RestartError):
    """This replica is no longer the leader. The message is the reason."""


@dataclass
class Election:
    """One replica's part in the election. `clock` is monotonic, in seconds."""

    server: Server
    namespace: str
    name: str
    identity: str
    clock: Callable[[], float]
    terms: Terms = field(default_factory=Terms)
    scope: Scope = field(default_factory=Scope)  # the services of this installation, for other ones
    _lease: Lease = None  # as last read or written
    _changed: float = 0.0  # when this replica last saw a change of it
    _others: bool = False  # whether another replica was its last holder
    _renewed: float | None = None  # when the last successful renewal was sent; None: this replica is not the leader

    def seconds_left(self) -> float:
        """Return the seconds for which this replica may act without another renewal; 0 or less: not at all.

        It also holds for a process that was stopped (SIGSTOP) and continued.
        """
        return 0.0 if self._renewed is None else self._renewed + self.terms.deadline - self.clock()

    async def check(self) -> None:
        """Read the Lease, and write it in a dry run.

        Raises:
            CallError: a permission is missing, or the API server does not answer.
        """
        lease = await self._read()
        try:
            await self._write(lease, self._build_claim(lease), dry_run=True)
        except CallError as error:
            if error.code != CONFLICT:  # another replica has written it meanwhile
                raise

    async def acquire(self) -> None:
        """Return when this replica holds the Lease. Failed calls are retried."""
        while True:
            try:
                if await self._acquire_or_renew():
                    return
            except CallError as error:
                _log.warning("Lease not read or written", lease=self.name, error=error.message)
            await asyncio.sleep(self.terms.retry)

    async def renew(self) -> NoReturn:
        """Renew the Lease periodically.

        Raises:
            LeaseLostError: another replica holds it, or it could not be renewed in time.
        """
        while True:
            problem = "this process did not run"
            await asyncio.sleep(min(self.terms.retry, self.seconds_left()))
            try:
                if not await self._acquire_or_renew():
                    raise LeaseLostError(f"{_get_holder(self._lease)} holds the Lease")
            except CallError as error:
                problem = error.message
                _log.warning("Lease not renewed", lease=self.name, error=problem)
            if self.seconds_left() <= 0:
                raise LeaseLostError(f"the Lease was not renewed for {self.terms.deadline:g} s: {problem}")

    async def release(self) -> None:
        """Release the Lease if this replica holds it. If that fails, it expires."""
        self._renewed = None
        try:
            async with asyncio.timeout(self.terms.timeout):
                await self._write_release()
        except (CallError, TimeoutError) as error:
            _log.warning("Lease not released", lease=self.name, error=str(error))

    async def _write_release(self) -> None:
        """Read the Lease and release it; retry once if a cancelled renewal came between the two."""

        async def release(lease: Lease) -> None:
            if _get_holder(lease) == self.identity:
                await self._write(lease, {"holderIdentity": "", "leaseDurationSeconds": _RELEASED})

        await retry_on_conflict(release, self._read, await self._read(), attempts=2)

    async def _acquire_or_renew(self) -> bool:
        """Take or renew the Lease; return whether this replica holds it.

        Raises:
            CallError: the API server does not answer, or refuses.
        """
        sent = self.clock()
        try:
            async with asyncio.timeout(self.terms.timeout):
                is_ours = await self._take()
        except TimeoutError:
            raise CallError(0, "Timeout", f"no answer for {self.terms.timeout:g} s") from None
        self._renewed = sent if is_ours else None
        return is_ours

    async def _take(self) -> bool:
        """Write the Lease unless another replica holds it; read it first, except for a renewal."""

        async def take(lease: Lease) -> bool:
            self._note(lease)
            if self._is_held_by_another(lease):
                return False
            self._note(await self._write(lease, self._build_claim(lease)))
            return True

        lease = await self._read() if self._renewed is None else self._lease
        return await retry_on_conflict(take, self._read, lease, attempts=2, codes=(CONFLICT, _NOT_FOUND))

    async def _read(self, _: CallError | None = None) -> Lease:
        return await self.server.get(self.namespace, Ref(LEASE, self.name))

    def _note(self, lease: Lease) -> None:
        if (lease or {}).get("spec") != (self._lease or {}).get("spec"):
            self._changed = self.clock()
        self._lease = lease
        if holder := _get_holder(lease):
            self._others = holder != self.identity

    def _is_held_by_another(self, lease: Lease) -> bool:
        """Return whether another replica may act: it has renewed the Lease within the Lease's duration.

        Its time also runs after the Lease was deleted, or emptied by another writer.
        """
        holder = _get_holder(lease)
        if holder == self.identity or (not holder and (_is_released(lease) or not self._others)):
            return False
        written = ((lease or {}).get("spec") or {}).get("leaseDurationSeconds")
        lasts = min(float(written), 5 * self.terms.duration) if written else self.terms.duration
        return self.clock() - self._changed < lasts

    def _build_claim(self, lease: Lease) -> dict[str, Any]:
        spec, now = (lease or {}).get("spec") or {}, datetime.now(UTC).isoformat(timespec="microseconds")
        now = now.replace("+00:00", "Z")
        if _get_holder(lease) == self.identity:
            return {"renewTime": now, "leaseDurationSeconds": round(self.terms.duration)}
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": round(self.terms.duration),
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": (spec.get("leaseTransitions") or 0) + (lease is not None),
        }

    async def _write(self, lease: Lease, spec: Mapping[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """Create the Lease, or replace the one that was read; 409 if that has been written since."""
        notes = self.scope.build_annotations()
        if lease is None:
            body = {
                "apiVersion": LEASE.api_version,
                "kind": LEASE.name,
                "metadata": {"name": self.name, "namespace": self.namespace, "annotations": notes},
                "spec": spec,
            }
            return await self.server.create(LEASE, body, dry_run=dry_run)
        meta = {**lease["metadata"], "annotations": {**(lease["metadata"].get("annotations") or {}), **notes}}
        changed = {**lease, "metadata": meta, "spec": {**(lease.get("spec") or {}), **spec}}
        return await self.server.replace(LEASE, changed, FIELD_MANAGER, dry_run=dry_run)


def _get_holder(lease: Lease) -> str:
    return str(((lease or {}).get("spec") or {}).get("holderIdentity") or "")


def _is_released(lease: Lease) -> bool:
    """Return whether its last holder has resigned."""
    spec = (lease or {}).get("spec") or {}
    return not _get_holder(lease) and spec.get("leaseDurationSeconds") == _RELEASED
