"""Triton's metrics page: for gates the counters and quantiles of one model, for autoscalers the load of the server.

Names and units: the page "Metrics" of Triton's user guide. Failures carry a `reason`, and each counts, CANCELED
too: a gate must count clients that give up on a slow model. On 2.51, an exception of a python model is
BACKEND, but an error that it returns (`InferenceResponse(error=...)`) is a success to Triton; a request that
does not fit the model's inputs is neither, and durations and quantiles are of successes only.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

SUCCESS: Final = "nv_inference_request_success"
FAILURE: Final = "nv_inference_request_failure"
DURATION_US: Final = "nv_inference_request_duration_us"
QUEUE_US: Final = "nv_inference_queue_duration_us"
COMPUTE_US: Final = (
    "nv_inference_compute_input_duration_us",
    "nv_inference_compute_infer_duration_us",
    "nv_inference_compute_output_duration_us",
)
SUMMARY_US: Final = "nv_inference_request_summary_us"
PENDING: Final = "nv_inference_pending_request_count"
GPU_UTILIZATION: Final = "nv_gpu_utilization"

# The percentiles of gates; Triton also reports 0.999.
_PERCENTILES: Final = {"0.5": 50, "0.9": 90, "0.95": 95, "0.99": 99}
_COUNTERS: Final = (SUCCESS, FAILURE, DURATION_US, QUEUE_US)
_GATES: Final = tuple(f"{name}{{" for name in (*_COUNTERS, SUMMARY_US))
_OF_THE_MODEL: Final = (SUCCESS, FAILURE, DURATION_US)
# Characters of the lines that are parsed. All pages are parsed in one thread, and the time that the parser takes grows
# with the square of a line's length. Triton writes lines of about 100 characters, and some 20 of them for a model.
_MOST_CHARACTERS: Final = 256 * 1024
_LONGEST_LINE: Final = 1_024
_MOST_LINES: Final = 20_000  # of a page, read or not
_NAME: Final = re.compile(r"[\w.-]{1,128}", re.ASCII)  # of a model, which a message may have
_MOST_PARTS: Final = 64  # models of a server beside the one that clients request; of more, none is read
_LARGEST: Final = 2**53  # of a counter or a gauge; floats are exact up to here
_LOAD: Final = tuple(f"{name}{{" for name in (*_COUNTERS, *COMPUTE_US, PENDING, GPU_UTILIZATION))


class Series(NamedTuple):
    """One counter of one version of the model."""

    metric: str
    version: str
    reason: str
    model: str = ""  # where a reading is of more than one


@dataclass(frozen=True)
class Scrape:
    """Counters and quantiles of a model at one moment."""

    counters: Mapping[Series, float] = field(default_factory=dict)
    quantiles: tuple[tuple[int, float], ...] = ()  # percentile and microseconds; the slowest version's
    parts: Mapping[str, float] = field(default_factory=dict)  # microseconds of requests to each other model


@dataclass(frozen=True)
class Load:
    """Load of a Triton at one moment."""

    # Requests and their durations are of the model that clients request. Queues and computing are of all: an ensemble
    # waits where its slowest part does.
    counters: Mapping[Series, float] = field(default_factory=dict)
    pending: float = 0.0  # requests in the queues of all models
    gpus: tuple[float, ...] = ()  # utilization of each of the pod's GPUs, from 0 to 1


def read_metrics(text: str, model: str) -> Scrape:
    """Return the counters and quantiles of a model on a metrics page; empty where Triton does not serve the model.

    Other models of the page are its parts, or those of a pipeline that leads to it.

    Raises:
        ValueError: the page is not in Prometheus' text format, is too long, or has a counter that is negative, infinite
            or above 2^53.
    """
    counters: dict[Series, float] = {}
    quantiles: dict[int, float] = {}
    for sample in _parse_samples(text, _GATES, f'"{model}"'):
        labels = sample.labels
        if labels.get("model") != model:
            continue
        if sample.name == SUMMARY_US:
            percentile = _PERCENTILES.get(labels.get("quantile", ""))
            # Without a request in the last minute the quantiles are NaN.
            if percentile is not None and _is_amount(sample.value):
                quantiles[percentile] = max(float(sample.value), quantiles.get(percentile, 0.0))
        else:
            counters[Series(sample.name, labels.get("version", ""), labels.get("reason", ""))] = _read_counter(sample)
    return Scrape(counters, tuple(sorted(quantiles.items())), _read_parts(text, model) if counters else {})


def _read_parts(text: str, model: str) -> dict[str, float]:
    """Return the duration of requests to all other models of a page, in microseconds; empty: there are too many."""
    start, own = f"{DURATION_US}{{", f'"{model}"'
    lines = [line for line in text.split("\n") if line.startswith(start) and own not in line]
    if len(lines) > _MOST_PARTS:
        return {}
    parts: dict[str, float] = {}
    for sample in _parse_samples("\n".join(lines), (start,)):
        if _NAME.fullmatch(name := sample.labels.get("model", "")):
            parts[name] = parts.get(name, 0.0) + _read_counter(sample)
    return parts


def read_load(text: str, model: str) -> Load:
    """Return the load of a Triton; `model` is the one that clients request; empty: all models.

    Raises:
        ValueError: the page is not in Prometheus' text format, is too long, or has a counter that is negative, infinite
            or above 2^53.
    """
    counters: dict[Series, float] = {}
    pending, gpus = 0.0, []
    for sample in _parse_samples(text, _LOAD):
        name, labels, value = sample.name, sample.labels, sample.value
        of = labels.get("model", "")
        if name in {PENDING, GPU_UTILIZATION}:
            if not _is_amount(value):  # unknown to the driver
                continue
            if name == PENDING:
                pending += value
            else:
                gpus.append(value)
        elif model in {"", of} or name not in _OF_THE_MODEL:
            counters[Series(name, labels.get("version", ""), labels.get("reason", ""), of)] = _read_counter(sample)
    return Load(counters, pending, tuple(gpus))


def compute_growth(before: Mapping[Series, float], after: Mapping[Series, float]) -> dict[str, float]:
    """Return the growth of counters between two readings, by metric."""
    sums: dict[str, float] = {}
    for series, value in after.items():
        sums[series.metric] = sums.get(series.metric, 0.0) + grow(before.get(series, 0.0), value)
    return sums


def grow(before: float, after: float) -> float:
    """Return the growth of a counter between two readings.

    As Prometheus' `increase`: a counter below its last value began anew at zero.

    >>> grow(3, 5), grow(5, 3)
    (2, 3)
    """
    return after - before if after >= before else after


def _parse_samples(text: str, prefixes: tuple[str, ...], part: str = "") -> Iterator[Sample]:
    """Yield the samples of the lines that begin with one of `prefixes` and contain `part`, out of thousands."""
    if text.count("\n") > _MOST_LINES:
        raise ValueError(f"more than {_MOST_LINES} lines")
    lines = [line for line in text.split("\n") if line.startswith(prefixes) and part in line]
    if sum(map(len, lines)) > _MOST_CHARACTERS or any(len(line) > _LONGEST_LINE for line in lines):
        raise ValueError(f"more than {_MOST_CHARACTERS >> 10} KiB, or a line of more than {_LONGEST_LINE} characters")
    try:
        for family in text_string_to_metric_families("\n".join(lines) + "\n"):
            yield from family.samples
    except ArithmeticError as error:  # a timestamp that no float holds
        raise ValueError(str(error)) from error


def _read_counter(sample: Sample) -> float:
    """Return the value of a counter."""
    if not _is_amount(sample.value):
        raise ValueError(f"{sample.name} is {sample.value}")
    return float(sample.value)


def _is_amount(value: float) -> bool:
    return 0 <= value <= _LARGEST
