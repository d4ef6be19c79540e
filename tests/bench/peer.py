"""KServe's figures, which `tests.bench.report` compares with: docs/measurements.md, "Beside KServe".

KServe's Go controller (after v0.20.0, webhooks on) and R, on one API server on two cores, 2026-11-21: 200 services of
three children each, two runs. They are not measured again. What a machine's speed changes is a multiple of R, which is
measured beside each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Peer:
    """A controller's figures in the burst and with paced creations, each the mean of the two runs.

    Attributes:
        services_per_second: in the burst, until all have their children.
        cpu_seconds: processor time of the burst.
        kib_each: memory of a service over the idle controller, in KiB.
        writes_each: until settled, in the burst.
        reads_each: of single objects.
        restart_writes: where nothing has changed.
    """

    services_per_second: float
    cpu_seconds: float
    kib_each: float
    writes_each: float
    reads_each: float
    restart_writes: int


SERVICES: Final = 200
CHILDREN: Final = 3  # of each service
KSERVE: Final = Peer(10.4, 6.65, 140, 11.0, 20.5, 402)
R: Final = Peer(21.95, 1.1, 142, 5.0, 0.0, 0)
RATE: Final = KSERVE.services_per_second / R.services_per_second
"""Children a second of KServe, in multiples of R."""
CPU: Final = KSERVE.cpu_seconds / R.cpu_seconds
"""Processor time of a child of KServe, in multiples of R."""
