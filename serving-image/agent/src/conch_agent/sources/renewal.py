"""Temporary credentials of a store's client: requested anew before they expire, with failures that are reported."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Generic, Protocol, TypeVar

from conch_agent.reasons import Failure

_MARGIN: Final = dt.timedelta(minutes=6)  # the client requests others five minutes before some expire


class _Expiring(Protocol):
    """A dictionary of the client with the key `expires_at`."""

    def __getitem__(self, key: Any, /) -> Any:
        """Return a value."""


T = TypeVar("T", bound=_Expiring)


class Renewal(Generic[T]):
    """The credentials of one source."""

    def __init__(self, request: Callable[[dt.datetime], Awaitable[T]]) -> None:
        """Create it without credentials.

        Args:
            request: Requests credentials, at a time; `expires_at` in them is when they expire, or None.
        """
        self._request = request
        self._lock = asyncio.Lock()
        self._credentials: T | None = None

    async def read(self) -> T:
        """Return credentials, which are valid for six minutes at least as far as the issuer grants that.

        Raises:
            Failure: They cannot be had.
        """
        async with self._lock:
            now = dt.datetime.now(dt.UTC)
            if self._credentials is None or (self._credentials["expires_at"] or now) < now + _MARGIN:
                self._credentials = await self._request(now)
            return self._credentials

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
