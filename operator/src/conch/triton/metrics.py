"""Triton's metrics page, read for one model: its request counters and its latency quantiles.

Names and units: the page "Metrics" of Triton's user guide. Failures carry a `reason`, and each counts, CANCELED
too: a client that gives up on a slow model is what a gate must see. Seen on 2.51: what a python model raises is
BACKEND, but an error that it answers (`InferenceResponse(error=...)`) is a success to Triton; a request that
does not fit the model's inputs is neither, and durations and quantiles are of successes only.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

SUCCESS: Final = "nv_inference_request_success"
FAILURE: Final = "nv_inference_request_failure"
DURATION_US: Final = "nv_inference_request_duration_us"
QUEUE_US: Final = "nv_inference_queue_duration_us"
SUMMARY_US: Final = "nv_inference_request_summary_us"

# Those that gates may ask for; Triton tells 0.999 as well.
_PERCENTILES: Final = {"0.5": 50, "0.9": 90, "0.95": 95, "0.99": 99}
_COUNTERS: Final = (SUCCESS, FAILURE, DURATION_US, QUEUE_US)
_WANTED: Final = tuple(f"{name}{{" for name in (*_COUNTERS, SUMMARY_US))


class Series(NamedTuple):
    """One counter of one version of the model."""

    metric: str
    version: str
    reason: str


@dataclass(frozen=True)
class Scrape:
    """What a Triton tells of a model at one moment."""

    counters: Mapping[Series, float] = field(default_factory=dict)
    quantiles: tuple[tuple[int, float], ...] = ()  # percentile and microseconds; the slowest version's


def read_metrics(text: str, model: str) -> Scrape:
    """Return what a metrics page says of a model; nothing where Triton does not serve it.

    Raises:
        ValueError: the page is not in Prometheus' text format.
    """
    counters: dict[Series, float] = {}
    quantiles: dict[int, float] = {}
    for sample in _samples(text, model):
        labels = sample.labels
        if sample.name == SUMMARY_US:
            percentile = _PERCENTILES.get(labels["quantile"])
            # Without a request in the last minute the quantiles are NaN.
            if percentile is not None and not math.isnan(sample.value):
                quantiles[percentile] = max(sample.value, quantiles.get(percentile, 0.0))
        else:
            counters[Series(sample.name, labels.get("version", ""), labels.get("reason", ""))] = sample.value
    return Scrape(counters, tuple(sorted(quantiles.items())))


def _samples(text: str, model: str) -> Iterator[Sample]:
    """Parse only the lines that are wanted: with GPUs and many models a page has thousands."""
    lines = [line for line in text.splitlines() if line.startswith(_WANTED)]
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            if sample.labels.get("model") == model:
                yield sample
