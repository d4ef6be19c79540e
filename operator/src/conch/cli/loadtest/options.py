"""The options of `kubectl conch load`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from conch.cli.loadtest.schedule import Schedule

Protocol = Literal["http", "grpc"]


@dataclass(frozen=True)
class LoadOptions:
    """Service, schedule, endpoint and limits of a load test."""

    service: str
    variant: str | None
    rate: str
    duration: str
    schedule: Schedule
    protocol: Protocol
    url: str | None
    port_forward: bool
    headers: Mapping[str, str]
    concurrency: int
    timeout: float  # seconds
    plot: Path | None
