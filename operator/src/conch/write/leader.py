"""One of the replicas acts: the holder of a Lease.

The rules are those of client-go's package leaderelection. Clocks of two machines are never compared: a Lease is
another replica's until it has not been seen to change for its duration. Why not kubernetes_asyncio's election: it
renews without a timeout, so that two replicas act while one call hangs, and any refused connection ends it.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NoReturn

import structlog

from conch.api.kinds import LEASE, Ref
from conch.api.names import FIELD_MANAGER
from conch.write.errors import CallError
from conch.write.server import Server

_log = structlog.get_logger("conch")


@dataclass(frozen=True)
class Terms:
    """How long a Lease lasts, and how often it is renewed; all in seconds.

    Another replica leads at most `duration` and `retry` after the leader died, and `retry` after it left in peace.
    """

    duration: float = 12  # of the Lease, for those who stand by
    deadline: float = 8  # after which a leader that could not renew acts no more; shorter than `duration`
    retry: float = 2  # between two tries
    timeout: float = 3  # of one call


class LeaseLostError(Exception):
    """This replica leads no more. The message says why."""


@dataclass
class Election:
    """One replica's part in the election. `clock` is monotonic."""

    server: Server
    namespace: str
    name: str
    identity: str
    clock: Callable[[], float]
    terms: Terms = field(default_factory=Terms)
    _lease: Mapping[str, Any] | None = None  # as it was seen last
    _changed: float = 0.0  # when it was seen to change
    _renewed: float | None = None  # when the renewal that succeeded last was sent; None: it is not ours

    def holds(self) -> bool:
        """Whether this replica may act at this moment, even if it was stopped for a while and has not noticed."""
        return self._left() > 0

    async def win(self) -> None:
        """Stand by until the Lease is ours. An API server that does not answer is asked again."""
        while True:
            try:
                if await self._try():
                    return
            except CallError as error:
                _log.warning("Lease not read or written", lease=self.name, error=error.message)
            await asyncio.sleep(self.terms.retry)

    async def keep(self) -> NoReturn:
        """Renew the Lease again and again.

        Raises:
            LeaseLostError: another replica holds it, or it could not be renewed in time.
        """
        problem = ""
        while True:
            await asyncio.sleep(min(self.terms.retry, self._left()))
            try:
                if not await self._try():
                    raise LeaseLostError(f"{_holder(self._lease)} holds the Lease")
            except CallError as error:
                problem = error.message
                _log.warning("Lease not renewed", lease=self.name, error=problem)
            if not self.holds():
                raise LeaseLostError(f"the Lease was not renewed for {self.terms.deadline:g} s: {problem}")

    async def resign(self) -> None:
        """Give the Lease up at once, so that no other replica waits for it to run out. If that fails, it runs out."""
        if not self.holds():
            return
        self._renewed = None
        try:
            async with asyncio.timeout(self.terms.timeout):
                await self._write(self._lease, holderIdentity="", leaseDurationSeconds=1)
        except (CallError, TimeoutError) as error:
            _log.warning("Lease not given up", lease=self.name, error=str(error))

    async def _try(self) -> bool:
        """Take or renew the Lease; whether it is ours now.

        Raises:
            CallError: the API server does not tell.
        """
        sent = self.clock()
        try:
            async with asyncio.timeout(self.terms.timeout):
                ours = await self._take()
        except TimeoutError:
            raise CallError(0, "Timeout", f"no answer for {self.terms.timeout:g} s") from None
        self._renewed = sent if ours else None
        return ours

    async def _take(self) -> bool:
        """Write the Lease unless it is another replica's; look first where it is not known to be ours."""
        look = self._renewed is None
        for last in (False, True):
            if look:
                self._see(await self.server.get(self.namespace, Ref(LEASE, self.name)))
            if self._is_anothers(self._lease):
                return False
            try:
                self._see(await self._write(self._lease, **self._claim(self._lease)))
            except CallError as error:
                if last or error.code not in {404, 409}:
                    raise
                look = True  # it was written or deleted since it was seen
            else:
                return True
        return False

    def _left(self) -> float:
        """Seconds for which this replica may act unless it renews the Lease; none or fewer: it may not."""
        return 0.0 if self._renewed is None else self._renewed + self.terms.deadline - self.clock()

    def _see(self, lease: Mapping[str, Any] | None) -> None:
        if (lease or {}).get("spec") != (self._lease or {}).get("spec"):
            self._changed = self.clock()
        self._lease = lease

    def _is_anothers(self, lease: Mapping[str, Any] | None) -> bool:
        """Whether another replica may act: it has renewed the Lease within the duration that it wrote into it."""
        if _holder(lease) in {"", self.identity}:
            return False
        written = ((lease or {}).get("spec") or {}).get("leaseDurationSeconds")
        lasts = min(float(written), 5 * self.terms.duration) if written else self.terms.duration
        return self.clock() - self._changed < lasts

    def _claim(self, lease: Mapping[str, Any] | None) -> dict[str, Any]:
        spec, now = (lease or {}).get("spec") or {}, datetime.now(UTC).isoformat(timespec="microseconds")
        now = now.replace("+00:00", "Z")
        if _holder(lease) == self.identity:
            return {"renewTime": now, "leaseDurationSeconds": round(self.terms.duration)}
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": round(self.terms.duration),
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": (spec.get("leaseTransitions") or 0) + (lease is not None),
        }

    async def _write(self, lease: Mapping[str, Any] | None, **spec: Any) -> dict[str, Any]:
        """Create the Lease, or replace the one that was seen; 409 if it is not that one any more."""
        if lease is None:
            body = {
                "apiVersion": LEASE.api_version,
                "kind": LEASE.name,
                "metadata": {"name": self.name, "namespace": self.namespace},
                "spec": spec,
            }
            return await self.server.create(LEASE, body)
        changed = {**lease, "spec": {**(lease.get("spec") or {}), **spec}}
        return await self.server.replace(LEASE, changed, FIELD_MANAGER)


def _holder(lease: Mapping[str, Any] | None) -> str:
    return str(((lease or {}).get("spec") or {}).get("holderIdentity") or "")
