"""Temporary credentials of a store's client: requested anew before they expire, with failures that are reported.

The sources of an identity share them, as a pod may have thousands of models and token services have limits.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from conch_agent.reasons import Failure

_MARGIN: Final = dt.timedelta(minutes=6)  # the client requests others five minutes before some expire
_SHARED: Final = 300.0  # seconds: what another source receives is no older, as a store may have revoked it


class _Expiring(Protocol):
    """A dictionary of the client with the key `expires_at`."""

    def __getitem__(self, key: Any, /) -> Any:
        """Return a value."""


T = TypeVar("T", bound=_Expiring)


@dataclass(frozen=True)
class _Grant:
    """Credentials, when they were requested by the monotonic clock, and when others are requested in their place."""

    credentials: Any
    requested: float
    renewed: dt.datetime

    @property
    def is_shared(self) -> bool:
        return time.monotonic() < self.requested + _SHARED


_grants: Final[dict[Hashable, _Grant]] = {}  # the newest ones by identity


class Renewal(Generic[T]):
    """The credentials of one source."""

    def __init__(self, identity: Hashable, request: Callable[[dt.datetime], Awaitable[T]]) -> None:
        """Create it without credentials.

        Args:
            identity: What the request depends on; sources with an equal one share credentials.
            request: Requests credentials, at a time; `expires_at` in them is when they expire, which is later.
        """
        self._identity = identity
        self._request = request
        self._lock = asyncio.Lock()
        self._grant: _Grant | None = None

    async def read(self) -> T:
        """Return credentials, which are valid for six minutes, or half of the time for which they were issued.

        Raises:
            Failure: They cannot be had.
        """
        async with self._lock:
            now = dt.datetime.now(dt.UTC)
            if self._grant is None and (shared := _grants.get(self._identity)) and shared.is_shared:
                self._grant = shared
            if self._grant is None or self._grant.renewed <= now:
                self._grant = await self._renew(now)
            credentials: T = self._grant.credentials
            return credentials

    async def _renew(self, now: dt.datetime) -> _Grant:
        credentials = await self._request(now)
        expires: dt.datetime = credentials["expires_at"]
        grant = _Grant(credentials, time.monotonic(), expires - min(_MARGIN, (expires - now) / 2))
        for identity in [identity for identity, other in _grants.items() if not other.is_shared]:
            del _grants[identity]
        _grants[self._identity] = grant
        return grant

    def build_provider(self, on_failure: Callable[[Failure], None]) -> Callable[[], Coroutine[Any, Any, T]]:
        """Return what the client calls for credentials.

        Args:
            on_failure: Called with a failure, which the client replaces by an error of its own.
        """

        async def provide() -> T:
            try:
                return await self.read()
            except Failure as failure:
                on_failure(failure)
                raise

        return provide
