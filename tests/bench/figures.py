"""Figures of a process, and of many durations."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Figures:
    """What a process has used: seconds of processor time since its start, and its resident memory in MiB."""

    cpu_seconds: float
    mib: float


def figures_of(pid: int) -> Figures:
    """Return what a process has used until now (proc_pid_stat(5), proc_pid_statm(5))."""
    proc = Path(f"/proc/{pid}")
    fields = (proc / "stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    pages = int((proc / "statm").read_text().split()[1])
    return Figures(ticks / _TICKS, pages * _PAGE_BYTES / 2**20)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least so many percent of the values do not exceed (nearest rank).

    Of fewer than 100 values, the 99th percentile is the largest one.

    >>> percentile([4.0, 1.0, 3.0, 2.0], 50), percentile([4.0, 1.0, 3.0, 2.0], 99)
    (2.0, 4.0)
    """
    return sorted(values)[max(0, math.ceil(percent / 100 * len(values)) - 1)]
