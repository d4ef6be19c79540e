"""The criteria of fetched models and warm starts, by the figures of `tests.bench.models`."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.bench.criteria import Reading, Results

LAYOUT_SECONDS: Final = 0.010
START_SECONDS: Final = 1.0
_WARM: Final = "warm cache: "


def read_fetches(other: str, bound: float) -> Callable[[Results], Reading | None]:
    """P7: return the reading of Conch's speed as a multiple of another program's: of the model where it is least.

    Args:
        other: the program; `slower`: for each model, the slower one of s5cmd and sha256sum.
        bound: the least multiple.
    """

    def read(results: Results) -> Reading | None:
        ratios = {}
        for model, best in _find_best(results).items():
            seconds = max(best["s5cmd"], best["sha256sum"]) if other == "slower" else best[other]
            ratios[model] = seconds / best["Conch"]
        if not ratios:
            return None
        least = min(ratios, key=lambda model: ratios[model])
        measured = ", ".join(f"{ratio:.2f} ({model})" for model, ratio in ratios.items())
        kserve = "1" if other == "kserve-storage" else ""
        return Reading(measured, ratios[least] >= bound, peer=kserve, ratio=ratios[least])

    return read


def read_layout(results: Results) -> Reading | None:
    """P8: how long the largest model takes to be laid out; the best run."""
    if not (runs := _find_runs(results, f"{_WARM}laid out")):
        return None
    return Reading(f"{1000 * min(runs):.1f} ms", min(runs) <= LAYOUT_SECONDS)


def read_warm_start(results: Results) -> Reading | None:
    """P12: agent and Triton until an answer, beside Triton alone; medians."""
    answered, alone = (_find_runs(results, f"{_WARM}{what}") for what in ("answered", "Triton alone, answered"))
    if not answered or not alone:
        return None
    more = statistics.median(answered) - statistics.median(alone)
    return Reading(f"{statistics.median(answered):.2f} s ({more:+.2f} s)", more <= START_SECONDS)


def _find_runs(results: Results, what: str) -> list[float]:
    return [seconds for each in results.get("models", ()) if each["what"] == what for seconds in each["seconds"]]


def _find_best(results: Results) -> Mapping[str, Mapping[str, float]]:
    """Return the best seconds of each program for each model that was fetched."""
    best: dict[str, dict[str, float]] = defaultdict(dict)
    found: list[dict[str, Any]] = [each for each in results.get("models", ()) if not each["what"].startswith(_WARM)]
    for each in found:
        best[each["model"]][each["what"]] = min(each["seconds"])
    return best
