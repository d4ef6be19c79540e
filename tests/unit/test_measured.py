"""From Triton's metrics pages to totals that never fall, and to what happened between two moments."""

from __future__ import annotations

import pytest

from conch.observe.measured import MAX_POINTS, History, Totals
from conch.signals.accumulator import CounterAccumulator
from conch.triton.metrics import DURATION_US, FAILURE, SUCCESS, Scrape, Series, read_load, read_metrics

# A page of Triton 2.51, shortened; `other` stands for a second model of the same server.
PAGE = """
# HELP nv_inference_request_success Number of successful inference requests, all batch sizes
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="m",version="1"} 30
nv_inference_request_success{model="m",version="2"} 12
nv_inference_request_success{model="other",version="1"} 1000
# TYPE nv_inference_request_failure counter
nv_inference_request_failure{model="m",reason="REJECTED",version="1"} 0
nv_inference_request_failure{model="m",reason="BACKEND",version="1"} 3
nv_inference_request_failure{model="m",reason="CANCELED",version="2"} 1
# TYPE nv_inference_request_duration_us counter
nv_inference_request_duration_us{model="m",version="1"} 1.5e+06
nv_inference_queue_duration_us{model="m",version="1"} 250
nv_inference_pending_request_count{model="m",version="1"} 7
# TYPE nv_inference_request_summary_us summary
nv_inference_request_summary_us_count{model="m",version="1"} 30
nv_inference_request_summary_us_sum{model="m",version="1"} 1.5e+06
nv_inference_request_summary_us{model="m",version="1",quantile="0.5"} 900
nv_inference_request_summary_us{model="m",version="1",quantile="0.99"} 8000
nv_inference_request_summary_us{model="m",version="1",quantile="0.999"} 90000
nv_inference_request_summary_us{model="m",version="2",quantile="0.5"} 1200
nv_inference_request_summary_us{model="m",version="2",quantile="0.99"} Nan
"""


def scrape(success: float, failure: float = 0, duration: float = 0, version: str = "1") -> Scrape:
    return Scrape(
        {
            Series(SUCCESS, version, ""): success,
            Series(FAILURE, version, "OTHER"): failure,
            Series(DURATION_US, version, ""): duration,
        },
        ((99, duration),),
    )


def requests(accumulator: CounterAccumulator) -> tuple[int, int]:
    totals = accumulator.totals(0.0)
    return totals.requests, totals.failures


def test_a_quantile_without_its_label_is_none() -> None:
    assert read_metrics('nv_inference_request_summary_us{model="m"} 7\n', "m") == Scrape()


def test_a_page_is_read_for_one_model_and_all_its_versions() -> None:
    read = read_metrics(PAGE, "m")
    accumulator = CounterAccumulator()
    accumulator.add("a", Scrape())
    accumulator.add("a", read)
    totals = accumulator.totals(5.0)
    assert (totals.requests, totals.failures) == (46, 4)
    assert (totals.duration_us, totals.queue_us) == (1.5e6, 250)
    assert totals.quantiles == ((50, 1200.0), (99, 8000.0))


def build_page(*durations: tuple[str, float]) -> str:
    """Return a page of an ensemble `m` with 10 requests, and of models with these microseconds."""
    lines = [f'{SUCCESS}{{model="m",version="1"}} 10', f'{DURATION_US}{{model="m",version="1"}} 100']
    lines += [f'{DURATION_US}{{model="{name}",version="1"}} {value}' for name, value in durations]
    return "\n".join(lines) + "\n"


def test_the_part_with_the_longest_requests_is_known() -> None:
    accumulator = CounterAccumulator()
    accumulator.add("a", read_metrics(build_page(("pre", 5000), ("post", 70)), "m"))
    history = History().with_totals(accumulator.totals(1.0))
    later = build_page(("pre", 5010), ("post", 100)).replace(" 10\n", " 13\n")
    accumulator.add("a", read_metrics(later, "m"))
    window = history.with_totals(accumulator.totals(2.0)).since(1.0)
    assert window.find_slowest_part() == ("post", 10)
    assert history.since(0.0).find_slowest_part() is None, "nothing has grown"


def test_of_many_other_models_none_is_read_and_neither_is_a_name_that_is_none() -> None:
    assert read_metrics(build_page(*((f"m{number}", 1) for number in range(65))), "m").parts == {}
    assert read_metrics(build_page(("<b>", 1), ("pre", 2)), "m").parts == {"pre": 2}


def test_a_model_that_is_not_served_has_no_data() -> None:
    assert read_metrics(PAGE, "none") == Scrape()
    assert read_metrics("", "m") == Scrape()


def test_a_text_that_is_no_page_is_refused() -> None:
    with pytest.raises(ValueError, match="convert"):
        read_metrics('nv_inference_request_success{model="m"} many\n', "m")


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            'nv_inference_request_success{model="m",' + 'a="' + "\\\\" * 2_000_000 + '"} 1\n', id="a line of 4 MB"
        ),
        pytest.param('nv_inference_request_success{model="m",version="1"} 1\n' * 80_000, id="4 MB of lines"),
        pytest.param("\n" * 1_000_000, id="1 MB of empty lines"),
        pytest.param('nv_inference_request_success{model="m",version="1"} NaN\n', id="no number"),
        pytest.param('nv_inference_request_success{model="m",version="1"} +Inf\n', id="infinite"),
        pytest.param('nv_inference_request_success{model="m",version="1"} -1\n', id="negative"),
        pytest.param(f'nv_inference_request_success{{model="m",version="1"}} 1{"0" * 4000}\n', id="4,000 digits"),
        pytest.param('nv_inference_request_success{model="m",version="1"\n', id="half a line"),
        pytest.param(f'nv_inference_request_success{{model="m",version="1"}} 1 {"9" * 900}\n', id="a late moment"),
    ],
)
def test_a_page_that_would_keep_the_operator_busy_or_has_impossible_counts_is_refused(page: str) -> None:
    for read in (read_metrics, read_load):
        with pytest.raises(ValueError):  # noqa: PT011  the words are the parser's, or ours
            read(page, "m")


def test_a_quantile_that_is_no_time_is_left_out() -> None:
    for value in ("NaN", "-1", "+Inf", "1" + "0" * 900):
        page = f'nv_inference_request_summary_us{{model="m",version="1",quantile="0.99"}} {value}\n'
        assert read_metrics(page, "m").quantiles == ()


def test_a_gauge_that_a_driver_does_not_know_is_left_out() -> None:
    page = 'nv_gpu_utilization{gpu_uuid="a"} NaN\nnv_gpu_utilization{gpu_uuid="b"} 0.5\n'
    assert read_load(page, "m").gpus == (0.5,)


def test_requests_of_a_pod_before_its_first_reading_are_not_counted() -> None:
    accumulator = CounterAccumulator()
    accumulator.add("a", scrape(500, 20))
    assert requests(accumulator) == (0, 0)
    accumulator.add("a", scrape(510, 21))
    assert requests(accumulator) == (11, 1)


def test_a_triton_that_restarts_counts_on() -> None:
    accumulator = CounterAccumulator()
    accumulator.add("a", scrape(100))
    accumulator.add("a", scrape(110))
    accumulator.add("a", scrape(4, 1))
    assert requests(accumulator) == (15, 1)


def test_a_version_that_comes_later_counts_from_its_start() -> None:
    accumulator = CounterAccumulator()
    accumulator.add("a", scrape(100))
    accumulator.add("a", scrape(7, version="2"))  # version 1 is gone, and takes nothing along
    assert requests(accumulator) == (7, 0)


def test_pods_come_and_go_and_totals_never_fall() -> None:
    accumulator = CounterAccumulator()
    accumulator.add("a", scrape(0))
    accumulator.add("a", scrape(10, duration=3000))
    accumulator.add("b", scrape(1000, duration=50))
    accumulator.keep({"b"})
    assert requests(accumulator) == (10, 0)
    accumulator.add("b", scrape(1005, duration=80))
    assert requests(accumulator) == (15, 0)
    assert accumulator.totals(0.0).quantiles == ((99, 80),), "a pod that is gone is slow no more"
    accumulator.add("a", scrape(12))  # the same pod again: what it did unseen is not counted
    assert requests(accumulator) == (15, 0)


def build_history(*points: tuple[int, int], quantiles: dict[int, float] | None = None) -> History:
    history = History()
    for time, count in points:
        quantile = (quantiles or {}).get(time)
        history = history.with_totals(Totals(time, count, quantiles=((99, quantile),) if quantile else ()))
    return history


def test_a_window_is_what_came_after_the_last_reading_before_its_start() -> None:
    history = build_history((10, 0), (12, 5), (14, 9), (16, 20))
    assert history.since(12).requests == 15
    assert history.since(13.9).requests == 15
    assert history.since(14).requests == 11
    assert history.since(16).requests == 0
    assert history.since(99).requests == 0
    assert (history.since(13).start, history.since(13).end) == (13, 16)


def test_a_window_that_begins_before_all_readings_begins_with_the_first() -> None:
    history = build_history((10, 100), (12, 105))
    assert history.since(0).requests == 5
    assert history.since(0).start == 10


def test_a_period_without_readings_has_no_requests() -> None:
    assert History().since(5).requests == 0
    assert History().with_error("no route").since(5).successes == 0
    assert build_history((10, 0), (12, 5)).with_error("no route").since(0).requests == 5


def test_equal_readings_take_no_space() -> None:
    history = build_history(*((time, 7) for time in range(10, 100)))
    assert len(history.points) == 1
    assert history.read == 99
    assert len(build_history(*((time, time) for time in range(2 * MAX_POINTS))).points) == MAX_POINTS


def test_time_never_runs_backwards() -> None:
    assert [point.time for point in build_history((10, 1), (8, 2), (11, 3)).points] == [10, 10, 11]


def test_the_mean_is_of_the_requests_that_succeeded() -> None:
    history = History().with_totals(Totals(1)).with_totals(Totals(3, requests=12, failures=2, duration_us=5000))
    assert history.since(0).latency_us(None) == 500
    assert History().since(0).latency_us(None) is None
    assert history.since(0).latency_us(99) is None


def test_percentiles_of_a_short_window_are_those_of_its_end() -> None:
    history = build_history((0, 0), (2, 5), (4, 9), quantiles={2: 900.0, 4: 100.0})
    assert history.since(0).latency_us(99) == 100.0


def test_percentiles_of_a_long_window_are_the_worst_of_its_minutes() -> None:
    quantiles = {30: 7000.0, 60: 900.0, 120: 300.0}
    history = build_history((0, 0), (30, 5), (60, 9), (120, 11), quantiles=quantiles)
    assert history.since(0).latency_us(99) == 900.0, "the point of second 30 speaks of a time before the window, too"
