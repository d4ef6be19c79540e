"""What the models of a pod have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from conch_agent.exchange import Exchange
from conch_agent.monitor import TritonMonitor
from conch_agent.peers import Peers
from conch_agent.pod_model import PodModel
from conch_agent.settings import Settings
from conch_agent.triton import Triton

_MAX_FETCHES: Final = 4  # models that are fetched at a time


@dataclass
class Server:
    """The Triton of a pod, and its models.

    Attributes:
        settings: The agent's settings.
        triton: The client of Triton.
        monitor: The monitor of Triton.
        wait_until_left: Waits until the pod gets no requests; returns False if it has to serve what it serves.
        models: All models of the manifest by name.
        peers: The other pods of the service; None: this pod is alone.
        slots: Limits the number of models that are fetched at a time.
        exchange: The exchange of the models that Triton has for those of the manifest; None: it needs none.
    """

    settings: Settings
    triton: Triton
    monitor: TritonMonitor
    wait_until_left: Callable[[], Awaitable[bool]]
    models: Mapping[str, PodModel] = field(default_factory=dict)
    peers: Peers | None = None
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_MAX_FETCHES))
    exchange: Exchange | None = None
