"""The operator's election: what acts under the Lease ends before the Lease is given up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from conch import controller
from conch.settings import Settings


async def test_nothing_acts_any_more_when_the_election_has_been_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[str] = []

    async def lead(
        _server: Any, _namespace: str, _name: str, _identity: str, act: Callable[[], Awaitable[None]]
    ) -> None:
        """Elect as kubernetes_asyncio does: what acts is a task of its own, and survives it."""
        task = asyncio.ensure_future(act())
        await asyncio.sleep(60)
        task.cancel()

    async def leading() -> None:
        states.append("acts")
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            states.append("has ended")

    monkeypatch.setattr(controller, "lead", lead)
    settings = Settings.read({"CONCH_SERVING_IMAGE": "conch/serving:test", "CONCH_LEASE_NAMESPACE": "conch-system"})
    elected = asyncio.create_task(controller._elected(settings, None, leading))  # type: ignore[arg-type]
    await asyncio.sleep(0.05)
    elected.cancel()
    with pytest.raises(asyncio.CancelledError):
        await elected
    assert states == ["acts", "has ended"]
