"""The page of metrics of a pod: what Prometheus reads of it, and the times of its start."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from conch_agent.download import Progress
from conch_agent.metrics import ModelMetrics, Phase, PodTimes, render_metrics


def _read(page: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return the value of each sample by its name and the values of its labels, as Prometheus reads it."""
    samples = (sample for family in text_string_to_metric_families(page) for sample in family.samples)
    return {(sample.name, tuple(sample.labels.values())): sample.value for sample in samples}


def test_prometheus_reads_each_sample() -> None:
    model = ModelMetrics(Progress(downloaded=7, from_pods=5, hits=2, misses=1, waits=3, evicted=9))
    model.add(Phase.LIST, 0.5)
    model.add(Phase.LIST, 0.25)
    found = _read(render_metrics({"m": model}, PodTimes(started=10.5, ready=12.0, answered=13.0)))
    assert found == {
        ("conch_model_phase_seconds_sum", ("m", "list")): 0.75,
        ("conch_model_phase_seconds_count", ("m", "list")): 2,
        ("conch_model_downloaded_bytes_total", ("m",)): 7,
        ("conch_model_peer_bytes_total", ("m",)): 5,
        ("conch_model_cache_files_total", ("m", "hit")): 2,
        ("conch_model_cache_files_total", ("m", "miss")): 1,
        ("conch_model_cache_waits_total", ("m",)): 3,
        ("conch_model_cache_evicted_bytes_total", ("m",)): 9,
        ("conch_pod_start_time_seconds", ()): 10.5,
        ("conch_pod_ready_time_seconds", ()): 12.0,
        ("conch_pod_first_answer_time_seconds", ()): 13.0,
    }


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", 'a\\"\n'])
def test_any_name_of_a_model_is_one_label(name: str) -> None:
    found = _read(render_metrics({name: ModelMetrics(Progress(downloaded=1))}, PodTimes()))
    assert found["conch_model_downloaded_bytes_total", (name,)] == 1


def test_times_that_are_not_known_are_absent() -> None:
    names = {name for name, _ in _read(render_metrics({}, PodTimes()))}
    assert names == {"conch_pod_start_time_seconds"}


def test_a_phase_that_fails_is_counted() -> None:
    model = ModelMetrics()
    with pytest.raises(OSError, match="full"), model.time(Phase.FETCH):
        raise OSError("full")
    assert model.counts == {Phase.FETCH: 1}


def test_the_first_answer_is_one_after_those_of_the_warm_up() -> None:
    times = PodTimes()
    times.note_ready()
    first = times.ready
    times.note_ready()
    assert times.ready == first
    for count in (5, 5, 0, 0):  # Triton starts again, and counts anew
        assert times.is_count_due
        times.note_requests(count)
    assert not times.answered
    times.note_requests(1)
    assert times.answered
    assert not times.is_count_due


def test_requests_are_counted_less_often_after_a_minute() -> None:
    times = PodTimes()
    times.note_ready()
    times.note_requests(0)
    times.ready -= 61
    assert not times.is_count_due
