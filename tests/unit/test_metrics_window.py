"""Metrics for an autoscaler: from pages of Triton to numbers, with clocks and counters that go wrong."""

from __future__ import annotations

from typing import Any

import pytest

from conch.api.metrics import TritonMetric
from conch.api.quantity import format_quantity
from conch.metrics.window import READING_SECONDS, Rates, Reading, append_reading, calculate_metrics, calculate_rates
from conch.triton.metrics import SUCCESS, Load, read_load

RATIO, PENDING, RPS, LATENCY, GPU = (
    TritonMetric.QUEUE_TO_COMPUTE_RATIO,
    TritonMetric.PENDING_REQUESTS,
    TritonMetric.REQUESTS_PER_SECOND,
    TritonMetric.INFERENCE_LATENCY,
    TritonMetric.GPU_UTILIZATION,
)


def build_page(requests: int, *, busy: float = 0.0, queued: float = 0.0, pending: int = 0, version: str = "1") -> str:
    """A page of Triton 2.51, shortened: counters since its start, times in seconds; and an ensemble's other model."""
    labels = f'{{model="m",version="{version}"}}'
    other = '{model="part",version="1"}'
    took = (busy + queued) * 1e6
    return f"""
# TYPE nv_inference_request_success counter
nv_inference_request_success{labels} {requests}
nv_inference_request_success{other} 999999
nv_inference_request_failure{{model="m",reason="BACKEND",version="{version}"}} 0
nv_inference_request_duration_us{labels} {took}
nv_inference_queue_duration_us{labels} {queued * 1e6}
nv_inference_queue_duration_us{other} 0
nv_inference_compute_input_duration_us{labels} 0
nv_inference_compute_infer_duration_us{labels} {busy * 1e6}
nv_inference_compute_output_duration_us{labels} 0
nv_inference_pending_request_count{labels} {pending}
nv_inference_pending_request_count{other} 0
"""


def read(time: float, *args: Any, **kwargs: Any) -> Reading:
    return Reading(time, read_load(build_page(*args, **kwargs), "m"))


def calculate(*readings: Reading, window: float = 15.0) -> dict[TritonMetric, float]:
    done = calculate_rates(readings, window)
    return {} if done is None else dict(calculate_metrics(done))


def test_a_pod_without_the_name_of_its_model_counts_all_models() -> None:
    """A pod that an older operator rendered has no model name."""
    counted = read_load(build_page(7), "").counters
    assert sum(value for series, value in counted.items() if series.metric == SUCCESS) == 7 + 999999


def test_one_reading_has_no_rate() -> None:
    assert calculate(read(0, 100, busy=10)) == {}


def test_two_readings_have_the_rates_between_them() -> None:
    metrics = calculate(read(100, 1000, busy=50, queued=3), read(115, 1150, busy=60, queued=8, pending=4))
    assert metrics == pytest.approx({RPS: 10.0, RATIO: 0.5, LATENCY: 0.1, PENDING: 4.0})


def test_the_window_is_that_of_the_autoscaler_although_its_request_is_a_little_early() -> None:
    """With a request every 14.9 seconds, the rate is of the last 14.9, not of the last 29.8."""
    before, middle, last = read(0, 0), read(14.9, 149), read(29.8, 149 * 3)
    assert calculate(before, middle, last)[RPS] == pytest.approx(20.0)


def test_frequent_requests_get_the_rates_of_the_whole_window() -> None:
    readings = [read(5.0 * step, 10 * step, pending=step) for step in range(5)]
    done = calculate_rates(readings, 15.0)
    assert done is not None
    assert done.seconds == 15.0
    assert done.pending == 3.0, "the mean of the readings in the window"


def test_a_counter_that_restarts_is_no_negative_rate() -> None:
    """Triton was restarted: 30 requests since; those between the first reading and the restart are not known."""
    assert calculate(read(0, 1000, busy=50), read(15, 30, busy=3))[RPS] == pytest.approx(2.0)


def test_a_version_added_between_two_readings_counts_whole() -> None:
    assert calculate(read(0, 90), read(15, 30, version="2"))[RPS] == pytest.approx(2.0)


def test_two_readings_of_one_time_have_no_rate() -> None:
    assert calculate(read(7, 10), read(7, 20)) == {}


def test_a_quiet_model_waits_for_nothing() -> None:
    metrics = calculate(read(0, 10, busy=1), read(15, 10, busy=1))
    assert metrics == {RPS: 0.0, RATIO: 0.0, LATENCY: 0.0, PENDING: 0.0}


def test_a_model_slower_than_the_window_is_unknown_and_not_idle() -> None:
    """Requests wait and none was answered: a rate of 0 would remove the pods that they wait for."""
    metrics = calculate(read(0, 10, busy=1), read(15, 10, busy=1, pending=7))
    assert metrics == {RPS: 0.0, PENDING: 7.0}


def test_rates_of_pods_combine_queue_and_compute_times() -> None:
    one = calculate_rates([read(0, 0), read(10, 100, busy=8, queued=8)])
    other = calculate_rates([read(0, 0), read(20, 20, busy=2, queued=0)])
    assert one is not None
    assert other is not None
    both = Rates.combine([one, other])
    assert both is not None
    assert calculate_metrics(both)[RPS] == pytest.approx(11.0)
    assert calculate_metrics(both)[RATIO] == pytest.approx(0.8 / 0.9)
    assert Rates.combine([]) is None


def test_gpu_utilization_is_measured_only_on_gpus() -> None:
    half, full = Load(gpus=(0.5, 0.5)), Load(gpus=(1.0, 0.8))
    assert GPU not in calculate(read(0, 0), read(15, 0))
    assert calculate(Reading(0, half), Reading(15, full))[GPU] == pytest.approx(0.9)


def test_a_reading_that_is_too_old_to_compare_with_is_forgotten() -> None:
    kept: tuple[Reading, ...] = ()
    for moment in (0.0, 15.0, 30.0, 30.0 + READING_SECONDS):
        kept = append_reading(kept, read(moment, 0))
    assert [each.time for each in kept] == [30.0, 30.0 + READING_SECONDS]


@pytest.mark.parametrize(
    ("value", "written"), [(0.0, "0"), (7.0, "7"), (0.5, "500m"), (1.25, "1250m"), (2e-6, "2u"), (1e-9, "1n")]
)
def test_numbers_are_written_as_quantities(value: float, written: str) -> None:
    assert format_quantity(value) == written
