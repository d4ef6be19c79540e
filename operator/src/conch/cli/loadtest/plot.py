"""The plot of a run: throughput, latency and replicas over time."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

from conch.cli.loadtest.results import Second

_INCHES: Final = (9.0, 8.0)
_DOTS: Final = 120  # an inch
# Okabe and Ito's colours, which colour-blind people can distinguish.
_BLUE, _GREEN, _RED, _ORANGE = "#0072B2", "#009E73", "#D55E00", "#E69F00"


def draw_figure(title: str, seconds: Sequence[Second]) -> Figure:
    """Return the figure of a run."""
    drawn = Figure(figsize=_INCHES, layout="constrained")
    requests, latency, replicas = drawn.subplots(3, 1, sharex=True, height_ratios=(3, 3, 2))
    drawn.suptitle(title)
    _requests(requests, seconds)
    _latency(latency, seconds)
    _replicas(replicas, seconds)
    replicas.xaxis.set_major_locator(MaxNLocator(integer=True))
    replicas.set_xlabel("seconds since the first request")
    return drawn


def save_figure(drawn: Figure, file: Path) -> None:
    """Write the figure in the format of the file's suffix. Raises OSError where it cannot be written."""
    drawn.savefig(file, dpi=_DOTS)


def _requests(axes: Axes, seconds: Sequence[Second]) -> None:
    at = [second.second for second in seconds]
    axes.step(at, [s.scheduled for s in seconds], where="mid", color="grey", linestyle="--", label="scheduled")
    axes.step(at, [s.answered for s in seconds], where="mid", color=_GREEN, label="answered")
    for label, colour, values in (
        ("failed", _RED, [s.failed for s in seconds]),
        ("late", _ORANGE, [s.late for s in seconds]),
    ):
        if any(values):
            axes.step(at, values, where="mid", color=colour, label=label)
    axes.set_ylabel("requests a second")
    axes.set_ylim(bottom=0)
    _finish(axes)


def _latency(axes: Axes, seconds: Sequence[Second]) -> None:
    at = [second.second for second in seconds]
    _line(axes, at, [s.p50 for s in seconds], _BLUE, "p50")
    _line(axes, at, [s.p99 for s in seconds], _RED, "p99")
    axes.set_ylabel("latency, ms")
    if any(second.p99 for second in seconds):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
    _finish(axes)


def _replicas(axes: Axes, seconds: Sequence[Second]) -> None:
    at = [second.second for second in seconds]
    _line(axes, at, [s.desired for s in seconds], "grey", "desired", linestyle="--", drawstyle="steps-mid")
    _line(axes, at, [s.ready for s in seconds], _GREEN, "ready", drawstyle="steps-mid")
    axes.set_ylabel("replicas")
    axes.set_ylim(0, 1 + max((max(s.ready or 0, s.desired or 0) for s in seconds), default=0))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(axes)


def _line(
    axes: Axes,
    at: Sequence[int],
    values: Sequence[float | None],
    colour: str,
    label: str,
    **style: str,
) -> None:
    """Draw a line with gaps for unknown values."""
    known = [math.nan if value is None else value for value in values]
    axes.plot(at, known, color=colour, label=label, **style)  # type: ignore[arg-type]


def _finish(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", fontsize="small")
