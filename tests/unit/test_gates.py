"""Gates: a table of evaluations, and the stories of a gate over time."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic.alias_generators import to_camel

from conch.api import analysis
from conch.api.analysis import Gate, GateStatus, Verdict, named
from conch.api.gate_metric import GateMetric, JobGateMetric, RequestMetric, UnknownMetric
from conch.api.numbers import percent
from conch.api.reasons import Reason
from conch.decide.gates import METRICS, JobMetric, bound_of, build_queries, evaluate, evaluate_all
from conch.decide.gates.metric import CounterMetric, NoMeasurement
from conch.decide.gates.prometheus import fill
from conch.observe.measured import Answer, History, Measured, PrometheusQuery, Totals
from conch_contract.revision_jobs import REVISION_JOBS, WARMUP

RATE = {"successRate": {"min": "99.9%"}}
MEAN = {"latency": {"max": "50ms"}}
P99 = {"latency": {"percentile": 99, "max": "50ms"}}
QUERY = {"prometheus": {"server": "http://p:9090", "query": "up", "max": "0.5"}}
QUERY_TWO = {"prometheus": {"server": "http://p:9090", "query": "up", "min": -1, "max": "1.5e0"}}
START = 1000.0
JOB_METRICS = [metric for metric in METRICS.values() if issubclass(metric, JobMetric)]
GATES = {type(found.metric): found for found in map(Gate.model_validate, (RATE, MEAN, QUERY, {"parity": {}}))}


def gate(typed: dict[str, Any], **more: Any) -> Gate:
    return Gate.model_validate({**typed, **more})


def build_measured(requests: int, failures: int = 0, mean_ms: float = 1.0, p99_ms: float | None = None) -> Measured:
    """What was measured when so many requests came within ten seconds."""
    duration = (requests - failures) * mean_ms * 1000
    quantiles = ((99, p99_ms * 1000),) if p99_ms is not None else ()
    totals = Totals(START + 10, requests, failures, duration, 0.0, quantiles)
    return Measured(History().with_totals(Totals(START)).with_totals(totals))


def build_answer(value: float | None = None, error: str = "", time: float = START + 9) -> Measured:
    return Measured(answers={"prometheus": Answer(time, value, error)})


EVALUATIONS: list[tuple[str, dict[str, Any], Measured, str, str, str]] = [
    (
        "all succeed",
        RATE,
        build_measured(20),
        "Passed",
        "100%",
        "Success rate 100% over 20 requests meets the minimum of 99.9%.",
    ),
    ("exactly the minimum of samples", RATE, build_measured(1000, 1), "Passed", "99.9%", "meets the minimum of 99.9%"),
    ("one too many", RATE, build_measured(1000, 2), "Failed", "99.8%", "Success rate 99.8% over 1000 requests"),
    ("just below", RATE, build_measured(999999, 1000), "Failed", "99.8999%", "is below the minimum of 99.9%"),
    ("all fail", RATE, build_measured(20, 20), "Failed", "0%", "(failures: 1, allowed: 0)."),
    ("too few", RATE, build_measured(19, 19), "Inconclusive", "", "Waits for 20 requests."),
    (
        "a larger minimum",
        {**RATE, "minSamples": 100},
        build_measured(99),
        "Inconclusive",
        "",
        "Waits for 100 requests.",
    ),
    ("nothing measured", RATE, Measured(), "Inconclusive", "", "no pod has answered yet"),
    ("no pod answers", RATE, Measured(History().with_error("pod a is silent")), "Inconclusive", "", "pod a is silent."),
    ("fast", MEAN, build_measured(20, mean_ms=50.0), "Passed", "50ms", "Mean latency 50ms over 20 requests"),
    (
        "fast, inexact in binary",
        {"latency": {"max": "50.1ms"}},
        build_measured(30, mean_ms=50.1),
        "Passed",
        "50.1ms",
        "",
    ),
    ("slow", MEAN, build_measured(20, mean_ms=50.0001), "Failed", "50.001ms", "exceeds the maximum of 50ms"),
    (
        "failures have no latency",
        MEAN,
        build_measured(30, 11),
        "Inconclusive",
        "",
        "Waits for 20 requests that succeed.",
    ),
    (
        "fast on the whole",
        P99,
        build_measured(100, mean_ms=90, p99_ms=49),
        "Passed",
        "49ms",
        "Latency p99 49ms over 100 requests",
    ),
    ("slow for some", P99, build_measured(100, mean_ms=1, p99_ms=51), "Failed", "51ms", "exceeds the maximum of 50ms"),
    (
        "too few for a percentile",
        P99,
        build_measured(99, p99_ms=1),
        "Inconclusive",
        "",
        "Waits for 100 requests that succeed.",
    ),
    ("a smaller minimum", {**P99, "minSamples": 9}, build_measured(9, p99_ms=1), "Passed", "1ms", ""),
    ("no percentiles", P99, build_measured(100), "Inconclusive", "", "--metrics-config=summary_latencies=true"),
    ("below", QUERY, build_answer(0.25), "Passed", "0.25", "Query result 0.25 is within the bounds: at most 0.5."),
    ("at the bound", QUERY, build_answer(0.5), "Passed", "0.5", ""),
    ("above", QUERY, build_answer(0.75), "Failed", "0.75", "(failures: 1, allowed: 0)."),
    ("within", QUERY_TWO, build_answer(1.5), "Passed", "1.5", "within the bounds: at least -1 and at most 1.5e0."),
    ("beneath", QUERY_TWO, build_answer(-1.25), "Failed", "-1.25", ""),
    ("infinite", QUERY_TWO, build_answer(float("inf")), "Failed", "inf", ""),
    ("not answered", QUERY, Measured(), "Inconclusive", "", "Waits for an answer of Prometheus."),
    (
        "no number",
        QUERY,
        build_answer(error="the query answers 2 series"),
        "Inconclusive",
        "",
        "The query answers 2 series.",
    ),
]


@pytest.mark.parametrize(
    ("typed", "measured", "verdict", "value", "words"),
    [row[1:] for row in EVALUATIONS],
    ids=[r[0] for r in EVALUATIONS],
)
def test_an_evaluation(typed: dict[str, Any], measured: Measured, verdict: str, value: str, words: str) -> None:
    evaluation = evaluate(gate(typed), measured, None, START + 10)
    assert (evaluation.verdict, evaluation.status.value) == (verdict, value)
    assert words in evaluation.status.message
    assert evaluation.status.bound == bound_of(gate(typed))
    assert (evaluation.status.evaluated_at is None) == (verdict == "Inconclusive")
    assert evaluation.status.to_wire()["name"] == gate(typed).metric.gate_name


class Story:
    """A gate over time."""

    def __init__(self, typed: dict[str, Any], **more: Any) -> None:
        self.gate = gate(typed, **more)
        self.history = History().with_totals(Totals(START))
        self.status: GateStatus | None = None
        self.now = START
        self.since = START
        self.changes = 0

    def pass_by(self, seconds: float, requests: int = 0, failures: int = 0) -> Verdict:
        """Let requests come within some seconds, then evaluate."""
        self.now += seconds
        last = self.history.points[-1]
        self.history = self.history.with_totals(Totals(self.now, last.requests + requests, last.failures + failures))
        return self.evaluate()

    def evaluate(self) -> Verdict:
        evaluation = evaluate(self.gate, Measured(self.history), self.status, self.now, self.since)
        self.changes += evaluation.status != self.status
        self.status = evaluation.status
        return evaluation.verdict


def test_a_gate_is_evaluated_at_most_every_interval_and_on_what_came_since() -> None:
    story = Story(RATE, interval="30s", minSamples=10)
    assert story.pass_by(2, 10) == "Passed"
    assert story.pass_by(20, 50, 50) == "Passed", "not evaluated yet"
    assert story.changes == 1
    assert story.pass_by(10, 50) == "Failed"
    assert story.status is not None
    assert (story.status.samples, story.status.value) == (100, "50%")
    assert story.status.evaluated_at == "1970-01-01T00:17:12.000Z"


def test_the_evaluated_period_grows_until_it_has_enough_requests() -> None:
    story = Story(RATE)
    for _ in range(6):
        assert story.pass_by(60, 3) == "Inconclusive"
    assert story.changes == 1, "the status changes once while it waits"
    assert story.pass_by(60, 2) == "Passed"
    assert story.status is not None
    assert story.status.samples == 20


def test_no_traffic_never_passes() -> None:
    story = Story(RATE)
    for _ in range(1000):
        assert story.pass_by(10) == "Inconclusive"
    assert story.changes == 1


def test_tolerated_failures_are_no_pass_and_one_more_fails_for_good() -> None:
    story = Story(RATE, failureLimit=2)
    assert story.pass_by(10, 20) == "Passed"
    assert story.pass_by(10, 20, 5) == "Inconclusive"
    assert story.pass_by(10, 20) == "Passed"
    assert story.pass_by(10, 20, 5) == "Inconclusive"
    assert story.status is not None
    assert "(failures: 2, allowed: 2)." in story.status.message
    assert story.pass_by(10, 20, 5) == "Failed"
    assert story.pass_by(10, 20) == "Failed", "nothing mends it"
    assert evaluate(story.gate, Measured(story.history), story.status, story.now + 99).wait is None


def test_a_pass_of_an_earlier_step_is_no_pass_of_this_one() -> None:
    story = Story(RATE, failureLimit=1)
    story.pass_by(10, 20)
    assert story.pass_by(10, 20, 1) == "Inconclusive"
    assert story.pass_by(10, 20) == "Passed"
    story.since = story.now + 1
    assert story.pass_by(2, 15) == "Inconclusive"
    assert story.status is not None
    assert (story.status.message, story.status.failures) == ("Waits for 20 requests.", 1)
    assert story.pass_by(10, 20) == "Passed", "the failures of before still count"
    assert story.status.failures == 1


def test_pods_that_can_be_read_no_more_take_a_pass_back() -> None:
    story = Story(RATE)
    assert story.pass_by(10, 20) == "Passed"
    story.history = story.history.with_error("pod a does not answer")
    story.now += 25
    assert story.evaluate() == "Passed", "for a moment"
    story.now += 10
    assert story.evaluate() == "Inconclusive"
    assert story.status is not None
    assert "cannot be read: pod a does not answer." in story.status.message
    assert story.pass_by(1) == "Inconclusive"
    assert story.status.message == "Waits for 20 requests."


def test_an_operator_that_restarts_remembers_what_was_evaluated() -> None:
    story = Story(RATE, failureLimit=1)
    story.pass_by(10, 20, 5)
    assert story.pass_by(10, 20) == "Passed"
    story.history = History()
    story.now += 60
    assert story.evaluate() == "Passed"
    story.history = History().with_totals(Totals(story.now))
    assert story.pass_by(10, 20, 5) == "Failed"


def test_an_answer_is_evaluated_once_and_an_error_takes_a_pass_back() -> None:
    query_gate = gate(QUERY)
    first = evaluate(query_gate, build_answer(0.1, time=START), None, START + 0.5)
    assert (first.verdict, first.wait) == ("Passed", 10.0)
    again = evaluate(query_gate, build_answer(0.1, time=START), first.status, START + 60)
    assert again.status == first.status
    broken = evaluate(
        query_gate, build_answer(error="the query answers nothing", time=START + 60.5), first.status, START + 61
    )
    assert (broken.verdict, broken.status.message) == ("Inconclusive", "The query answers nothing.")
    mended = evaluate(query_gate, build_answer(0.2, time=START + 71), broken.status, START + 71)
    assert (mended.verdict, mended.status.value) == ("Passed", "0.2")
    assert (
        evaluate(query_gate, build_answer(0.1, time=START), None, START + 5, since=START + 1).verdict == "Inconclusive"
    )


def test_the_next_window_begins_after_all_that_was_evaluated() -> None:
    story = Story(RATE)
    story.pass_by(10.000_4, 20, 20)
    assert story.status is not None
    assert story.status.evaluated_at == "1970-01-01T00:16:50.001Z"
    assert story.history.since(START + 10.001).requests == 0


def test_waiting_ends_when_the_interval_does() -> None:
    story = Story(RATE, interval="30s")
    story.pass_by(10, 20)
    assert evaluate(story.gate, Measured(story.history), story.status, story.now + 12).wait == pytest.approx(18)


def test_every_gate_has_a_name_of_its_own() -> None:
    typed: list[dict[str, Any]] = [RATE, P99, MEAN, RATE, {**QUERY, "name": "success-rate-2"}, RATE]
    assert [one.name for one in named(gate(part) for part in typed)] == [
        "success-rate",
        "latency-p99",
        "latency-mean",
        "success-rate-3",
        "success-rate-2",
        "success-rate-4",
    ]


def test_gates_are_evaluated_each_with_its_own_memory() -> None:
    gates = (gate(RATE, failureLimit=1), gate(RATE, name="strict"))
    first = evaluate_all(gates, build_measured(20, 1), (), START + 10)
    assert [(one.status.name, one.verdict) for one in first] == [("success-rate", "Inconclusive"), ("strict", "Failed")]
    again = evaluate_all(gates, build_measured(20, 1), [one.status for one in reversed(first)], START + 11)
    assert [one.status for one in again] == [one.status for one in first]


def test_a_verdict_of_another_operator_is_no_pass() -> None:
    status = GateStatus(name="success-rate", verdict="Splendid", value="1", evaluated_at="1970-01-01T00:16:40Z")
    assert evaluate(gate(RATE), Measured(), status, START + 1).verdict == "Inconclusive"


def test_queries_are_filled_in() -> None:
    typed = {"server": "http://p:9090", "query": 'a{r="{{revision}}"} / a{r="{{ stable }}"}', "max": 2}
    queries = build_queries(
        [gate(RATE), gate({"prometheus": typed}, interval="1m")], {"revision": "m-1", "stable": "m-0"}
    )
    assert queries == {"prometheus": PrometheusQuery("http://p:9090", 'a{r="m-1"} / a{r="m-0"}', 5.0, 60.0)}


@pytest.mark.parametrize(
    ("query", "value", "expected"),
    [
        ('up{s="{{service}}"}', 'a"} or up{s="', r'up{s="a\"} or up{s=\""}'),
        ("up{s='{{service}}'}", "it's", r"up{s='it\'s'}"),
        ('up{s="{{service}}"}', "a\\", r'up{s="a\\"}'),
        ('up{s="{{service}}"}', "{{stable}}", 'up{s="{{stable}}"}'),
        ("up{s=~'{{other}}'}", "a", "up{s=~'{{other}}'}"),
    ],
)
def test_a_name_cannot_break_out_of_its_quotes(query: str, value: str, expected: str) -> None:
    assert fill(query, {"service": value, "stable": "x"}) == expected


@pytest.mark.parametrize(("text", "share"), [("99.9%", 999 / 1000), ("0%", 0), ("100%", 1), ("0.0001%", 1e-6)])
def test_a_percentage_is_read_exactly(text: str, share: float) -> None:
    assert float(percent(text)) == share


@pytest.mark.parametrize("text", ["99", "", "%", "a%"])
def test_a_text_that_is_no_percentage_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"percentage|Fraction"):
        percent(text)


def test_a_verdict_fits_into_few_words() -> None:
    status = evaluate(gate(RATE), build_measured(20, 1), None, START + 10).status
    assert GateStatus.model_validate(status.to_wire()) == status
    assert status.to_wire() == {
        "name": "success-rate",
        "verdict": "Failed",
        "value": "95%",
        "bound": "at least 99.9%",
        "samples": 20,
        "failures": 1,
        "evaluatedAt": "1970-01-01T00:16:50.000Z",
        "message": "Success rate 95% over 20 requests is below the minimum of 99.9% (failures: 1, allowed: 0).",
    }


def test_a_metric_of_a_newer_crd_never_passes_and_ends_nothing() -> None:
    newer = Gate.model_construct(name=None)
    assert named([newer])[0].name == "unknown"
    result = evaluate(named([newer])[0], build_measured(1000), None, START + 10)
    assert result.verdict == "Inconclusive"
    assert "upgrade Conch" in result.status.message


def test_each_metric_of_the_spec_has_a_row_and_each_row_a_field_of_the_spec() -> None:
    fields = {name: set(get_args(field.annotation)) for name, field in Gate.model_fields.items()}
    specs = {name: found.pop() for name, types in fields.items() if (found := types & METRICS.keys())}
    assert specs == analysis.METRICS
    assert set(specs.values()) == METRICS.keys() - {UnknownMetric}
    others = {each for types in fields.values() for each in types if isinstance(each, type)} - METRICS.keys()
    assert not any(issubclass(each, GateMetric) for each in others), "a metric without a row"


@pytest.mark.parametrize("spec", analysis.METRICS.values(), ids=analysis.METRICS)
def test_a_metric_is_measured_by_counters_a_query_or_a_job(spec: type[GateMetric]) -> None:
    assert issubclass(METRICS[spec], CounterMetric) == issubclass(spec, RequestMetric)
    assert issubclass(METRICS[spec], JobMetric) == issubclass(spec, JobGateMetric)

    if issubclass(spec, RequestMetric):
        assert GATES[spec].samples >= 1, "without a request there is nothing to evaluate"


def test_the_description_of_a_gate_lists_its_metrics() -> None:
    *others, last = map(to_camel, analysis.METRICS)
    assert f"exactly one of {', '.join(others)} and {last}." in (Gate.__doc__ or "")


@pytest.mark.parametrize("metric", JOB_METRICS)
def test_a_metric_of_a_job_has_words_for_its_wait_and_for_the_preview(metric: type[JobMetric[Any, Any]]) -> None:
    assert metric.waiting in Reason
    assert metric.expectation


def test_the_reason_of_a_wait_is_of_one_metric() -> None:
    assert len({metric.waiting for metric in JOB_METRICS}) == len(JOB_METRICS)


@pytest.mark.parametrize("metric", JOB_METRICS)
def test_a_job_that_ended_without_a_result_is_no_measurement(metric: type[JobMetric[Any, Any]]) -> None:
    [spec] = (each for each, found in METRICS.items() if found is metric)
    broken = metric.job.report(reason=metric.job.broken, message="It was killed.")
    assert isinstance(metric(GATES[spec], GATES[spec].metric).read(broken), NoMeasurement)


def test_each_job_measures_one_gate_at_most() -> None:
    jobs = [metric.job for metric in METRICS.values() if issubclass(metric, JobMetric)]
    assert len(jobs) == len(set(jobs))
    assert set(jobs) == set(REVISION_JOBS) - {WARMUP}
