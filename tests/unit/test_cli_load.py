"""`kubectl conch load`, its pure parts: the schedule, the counts, the text, the plot, and the loop."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from conch.api import InferenceService, Warmup
from conch.cli import extras
from conch.cli.cluster import Cluster
from conch.cli.loadtest import plot, reporter, results, schedule
from conch.cli.loadtest.driver import CLIENT, IN_FLIGHT, Driver
from conch.cli.loadtest.endpoint import Endpoint, list_endpoints, open_endpoint, parse_url
from conch.cli.loadtest.forward import ready_pods
from conch.cli.loadtest.options import LoadOptions
from conch.cli.loadtest.replicas import count_replicas
from conch.cli.loadtest.results import Outcome, ReplicaSample, build_series, build_summary
from conch.cli.loadtest.runner import require_serving
from conch.cli.loadtest.schedule import Schedule
from conch.cli.loadtest.tensors import build_remedy, generate_request, parse_config_map, read_manifest_requests
from conch.cli.main import cli
from conch.cli.options import CommandError
from conch.cli.printing import format_plain
from tests.unit.simulation import build_manifest


@pytest.mark.parametrize(
    ("rate", "duration", "expected"),
    [
        ("50", "30s", Schedule(50, 50, 30)),
        ("5..100", "2m", Schedule(5, 100, 120)),
        ("8..0.5", "1.5s", Schedule(8, 0.5, 1.5)),
    ],
)
def test_a_rate_is_constant_or_a_ramp(rate: str, duration: str, expected: Schedule) -> None:
    assert schedule.parse_schedule(rate, duration) == expected


@pytest.mark.parametrize(
    ("rate", "duration", "words"),
    [
        ("0", "30s", "--rate 0 has no requests"),
        ("0..0", "30s", "--rate 0..0 has no requests"),
        ("-5", "30s", "--rate -5: expected requests a second"),
        ("5..", "30s", "--rate 5..: expected requests a second"),
        ("fast", "30s", "--rate fast: expected requests a second"),
        ("50", "30", "--duration '30' is not a duration"),
        ("50", "0s", "--duration 0s is 0"),
        ("100000", "1h", "is 360000000 requests, and each is kept until the end; at most 5000000"),
    ],
)
def test_an_invalid_schedule_is_refused_in_a_sentence(rate: str, duration: str, words: str) -> None:
    with pytest.raises(CommandError) as refused:
        schedule.parse_schedule(rate, duration)
    assert words in refused.value.message


@pytest.mark.parametrize("ramp", [Schedule(5, 100, 7), Schedule(100, 0, 3), Schedule(0, 33, 4), Schedule(0.3, 0.3, 10)])
def test_the_dues_follow_the_rate(ramp: Schedule) -> None:
    dues = list(ramp.dues())
    assert len(dues) == ramp.count
    assert dues == sorted(dues)
    assert dues[0] == 0
    assert dues[-1] < ramp.seconds
    slope = (ramp.last - ramp.first) / ramp.seconds
    for number, due in enumerate(dues):  # the area under the rate up to the moment
        assert ramp.first * due + slope * due**2 / 2 == pytest.approx(number)


OUTCOMES = [
    Outcome(0.0, 0.01, 0.001),
    Outcome(0.5, 0.53),
    Outcome(0.9, 2.1),
    Outcome(1.0, 1.2, 0.0, "failed", "[500] no"),
    Outcome(1.5, 2.6, 0.0, "late", IN_FLIGHT),
]


def test_each_second_of_the_series_has_the_requests_that_were_due_and_those_that_ended() -> None:
    seen = [ReplicaSample(0.0, 1, 1), ReplicaSample(0.99, 1, 2), ReplicaSample(2.01, 2, 2)]
    first, second, third = build_series(OUTCOMES, seen)
    assert (first.scheduled, first.answered, first.p50, first.p99) == (3, 2, 10.0, 30.0)
    assert (first.ready, first.desired) == (1, 2), "the last sample of the second"
    assert (second.scheduled, second.answered, second.failed, second.p50) == (2, 0, 1, None)
    assert (second.ready, second.desired) == (1, 2), "without a sample: as before"
    assert (third.scheduled, third.answered, third.late, third.p99, third.ready) == (0, 1, 1, 1200.0, 2)
    assert build_series([], []) == []


def test_the_summary_adds_up() -> None:
    value = build_summary(OUTCOMES, [ReplicaSample(0.0, 1, 1), ReplicaSample(1.0, 3, 3), ReplicaSample(2.0, 2, 3)], 2.0)
    assert value["scheduled"] == value["answered"] + value["failed"] + value["late"] == 5
    assert value["seconds"] == 2.6, "as long as its answers took"
    assert value["answeredPerSecond"] == 1.15
    assert value["latencyMilliseconds"] == {"p50": 30.0, "p90": 1200.0, "p99": 1200.0, "max": 1200.0}
    assert value["clientDelayMilliseconds"]["max"] == 1.0
    assert value["failures"] == [{"message": "[500] no", "count": 1, "first": 1.2, "last": 1.2}]
    assert value["lateReasons"][0]["message"] == IN_FLIGHT
    assert value["replicas"]["ready"] == {"first": 1, "most": 3, "last": 2}
    assert len(value["series"]) == 3
    nothing = build_summary([], [], 0.0)
    assert (nothing["scheduled"], nothing["replicas"], nothing["latencyMilliseconds"]["p99"]) == (0, None, None)


AT_ITS_LIMIT = "the service is slower than the rate of requests: it is at its limit, or --concurrency is too low"


def build_figures(**more: Any) -> dict[str, Any]:
    rest = {"rate": "2", "duration": "2s", "interrupted": False, "forwardError": None, "plot": None}
    return {**rest, **build_summary(OUTCOMES, [ReplicaSample(0.0, 1, 2)], 2.0), **more}


def test_the_summary_text_lists_failed_and_late_requests_with_their_reasons() -> None:
    assert format_plain(reporter.build_summary_text(build_figures())).splitlines() == [
        "",
        "5 scheduled in 2.6 s: 3 answered (1.1/s), 1 failed, 1 late",
        "Latency from the time when a request was due: p50 30.0ms, p90 1200ms, p99 1200ms, max 1200ms",
        "Of this, the client's own delay: p50 0ms, p90 1.00ms, p99 1.00ms, max 1.00ms",
        "Replicas: ready 1 at first, 1 at most, 1 at the end; desired 2 at first, 2 at most, 2 at the end",
        "",
        "FAILED   FIRST   LAST   REASON",
        "1        1.2s    1.2s   [500] no",
        "",
        "LATE   FIRST   LAST   REASON",
        "1      2.6s    2.6s   as many requests as --concurrency allows were in flight",
        f"Late requests were not sent: they could not be started within 1 s of when they were due; {AT_ITS_LIMIT}.",
    ]
    text = format_plain(
        reporter.build_summary_text(build_figures(interrupted=True, forwardError="error: lost", plot="run.svg"))
    )
    assert "Ended early: 2 requests a second were scheduled for 2s" in text
    assert "The port-forward failed (error: lost)" in text
    assert "Plot: run.svg" in text
    behind = build_figures(lateReasons=[{"message": CLIENT, "count": 9, "first": 1.0, "last": 2.0}])
    assert "lower --rate" in format_plain(reporter.build_summary_text(behind))
    slow = {**build_figures(), **build_summary([Outcome(0.0, 0.4, 0.3)], [], 1.0)}
    assert "Most of the latency is this client's, not the service's" in format_plain(reporter.build_summary_text(slow))


@pytest.mark.parametrize(("terminal", "words"), [(False, "   5s  10 scheduled, 3 answered (0.6/s)"), (True, "DESIRED")])
def test_progress_is_a_table_on_a_terminal_and_lines_elsewhere(terminal: bool, words: str) -> None:
    console = Console(force_terminal=terminal, width=120, record=True)
    with reporter.Reporter(console) as progress:
        progress.report(results.build_second(5, 10, OUTCOMES, None), 4)
    assert words in console.export_text()


def build_autoscaler(revision: str, desired: int | None) -> dict[str, Any]:
    status = {} if desired is None else {"desiredReplicas": desired}
    return {"spec": {"scaleTargetRef": {"name": revision}}, "status": status}


def build_service(**status: Any) -> InferenceService:
    return InferenceService.parse({**build_manifest(), "status": status})


def test_desired_replicas_of_an_autoscaler_precede_those_of_the_status() -> None:
    found = build_service(
        revisions=[
            {"name": "one", "replicas": {"ready": 1, "desired": 1}},
            {"name": "two", "replicas": {"ready": 2, "desired": 3}},
        ]
    )
    assert count_replicas(found, []) == (3, 4)
    assert count_replicas(found, [build_autoscaler("one", 5), build_autoscaler("gone", 9)]) == (3, 8)
    assert count_replicas(found, [build_autoscaler("two", None)]) == (3, 4), "its status has no number yet"


def test_load_requires_a_service_that_serves() -> None:
    since = {"lastTransitionTime": "2026-01-01T00:00:00Z"}
    waits = {"type": "Serving", "status": "False", "reason": "Loading", "message": "the model is loaded", **since}
    for status in ({}, {"url": "http://magika.demo.svc:8000"}, {"url": "http://x:8000", "conditions": [waits]}):
        with pytest.raises(CommandError, match=r"does not serve yet.*kubectl conch status"):
            require_serving(build_service(**status))
    answers = {**waits, "status": "True", "reason": "Serving"}
    assert require_serving(build_service(url="http://x:8000", conditions=[answers])).status.url == "http://x:8000"


def test_endpoints_of_a_service_begin_with_its_hostname() -> None:
    plain_one = build_service(url="http://magika.demo.svc:8000")
    assert [endpoint.address for endpoint in list_endpoints(plain_one, "http", "")] == ["magika.demo.svc:8000"]
    assert [endpoint.address for endpoint in list_endpoints(plain_one, "grpc", "10.96.0.7")] == [
        "magika.demo.svc:8001",
        "10.96.0.7:8001",
    ]
    assert list_endpoints(plain_one, "grpc", "fd00::7")[1].address == "[fd00::7]:8001"
    traffic = {"gateways": [{"name": "edge"}], "hostnames": ["*.example.com", "magika.example.com"]}
    with_hostnames = InferenceService.parse(
        {**build_manifest(traffic=traffic), "status": {"url": "http://magika.demo.svc:8000"}}
    )
    assert [endpoint.address for endpoint in list_endpoints(with_hostnames, "http", "")] == [
        "magika.example.com:80",
        "magika.demo.svc:8000",
    ]


def test_a_port_forward_leads_to_the_pods_that_are_ready() -> None:
    def build_endpoint(pod: str, **conditions: bool) -> dict[str, Any]:
        return {"targetRef": {"kind": "Pod", "name": pod}, "conditions": conditions, "addresses": ["10.0.0.1"]}

    by_address = {"addresses": ["10.0.0.9"], "conditions": {"ready": True}}  # of no pod
    first = {"endpoints": [build_endpoint("b", ready=True), build_endpoint("c", ready=False), by_address]}
    second = {
        "endpoints": [build_endpoint("b", ready=True), {"targetRef": {"name": "a"}}]
    }  # while one moves to another slice
    assert ready_pods([first, second, {"endpoints": None}]) == ["a", "b"]
    assert ready_pods([]) == []


def build_options(url: str | None = None) -> LoadOptions:
    return LoadOptions(
        "magika",
        None,
        "1",
        "1s",
        Schedule(1, 1, 1),
        "grpc",
        url,
        port_forward=False,
        headers={},
        concurrency=1,
        timeout=1.0,
        plot=None,
    )


async def test_load_uses_the_url_or_the_first_address_that_answers() -> None:
    tried = []

    async def answers(endpoint: Endpoint) -> bool:
        tried.append(endpoint.address)
        return endpoint.address in reachable

    cluster = cast("Cluster", None)  # only a port-forward uses it
    found, reachable = build_service(url="http://magika.demo.svc:8000"), {"10.96.0.7:8001"}
    async with open_endpoint(cluster, found, build_options(), "10.96.0.7", answers) as endpoint:
        assert endpoint.address == "10.96.0.7:8001"
    async with open_endpoint(cluster, found, build_options(url="http://10.0.0.1:8001"), "", answers) as endpoint:
        assert (endpoint.address, endpoint.read_error()) == ("10.0.0.1:8001", "")
    assert tried == ["magika.demo.svc:8001", "10.96.0.7:8001"], "the address of --url is not probed"
    with pytest.raises(CommandError, match=r"--url http://10\.0\.0\.1/triton: gRPC has no paths"):
        async with open_endpoint(cluster, found, build_options(url="http://10.0.0.1/triton"), "", answers):
            pass


@pytest.mark.parametrize(
    ("url", "address", "tls"),
    [
        ("10.0.0.1:8000", "10.0.0.1:8000", False),
        ("http://magika.example.com", "magika.example.com:80", False),
        ("https://magika.example.com/triton/", "magika.example.com:443/triton", True),
        ("http://[::1]:8001", "[::1]:8001", False),
    ],
)
def test_a_url_is_read(url: str, address: str, tls: bool) -> None:
    assert (parse_url(url).address, parse_url(url).tls) == (address, tls)


@pytest.mark.parametrize("url", ["", "ftp://host", "http://", "http://host:none", "http://me@host", "http://host?x=1"])
def test_an_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(CommandError, match=r"--url .*expected http://host:port"):
        parse_url(url)


METADATA = {
    "name": "m",
    "inputs": [
        {"name": "image", "datatype": "FP32", "shape": ["-1", "3", "-1"]},
        {"name": "index", "datatype": "INT64", "shape": [-1, 2]},
        {"name": "text", "datatype": "BYTES", "shape": [1]},
        {"name": "half", "datatype": "BF16", "shape": [2]},
        {"name": "mask", "datatype": "BOOL", "shape": [2]},
    ],
}


def test_load_generates_requests_as_the_warm_up_does() -> None:
    made = {each.name: each.tensor for each in generate_request(METADATA, {}).inputs}
    assert {name: list(tensor.shape) for name, tensor in made.items()} == {
        "image": [1, 3, 1],
        "index": [1, 2],
        "text": [1],
        "half": [2],
        "mask": [2],
    }
    assert not made["index"].any()
    assert not made["mask"].any()
    assert (made["image"] != generate_request(METADATA, {}, 1).inputs[0].tensor).all(), "requests of users differ"
    fewer = generate_request(METADATA, {"input": [{"name": "text", "optional": True}]}).inputs
    assert [each.name for each in fewer] == ["image", "index", "half", "mask"]
    assert "image [-1, 3, -1], index [-1, 2]" in build_remedy(METADATA, {})
    assert "image [-1, 3, -1]; write" in build_remedy(METADATA, {"max_batch_size": 8}), "the batch dimension is open"
    with pytest.raises(CommandError, match=r"has no required input .*spec\.predictor\.warmup\.requests"):
        generate_request({"name": "m"}, {})
    with pytest.raises(CommandError, match="input x is of datatype FP4"):
        generate_request({"inputs": [{"name": "x", "datatype": "FP4", "shape": [1]}]}, {})


def test_load_sends_the_requests_of_the_warm_up_unchanged() -> None:
    tensors = [
        {"name": "x", "datatype": "INT32", "shape": [2, 2], "data": [[1, 2], [3, 4]]},
        {"name": "t", "datatype": "BYTES", "shape": [2], "data": ["one", "two"]},
    ]
    [request] = read_manifest_requests(
        Warmup.model_validate({"requests": [{"inputs": tensors, "parameters": {"priority": 1}}]})
    )
    assert [each.tensor.tolist() for each in request.inputs] == [[[1, 2], [3, 4]], [b"one", b"two"]]
    assert request.parameters == {"priority": 1}
    wrong = {"inputs": [{**tensors[0], "shape": [3]}]}
    with pytest.raises(CommandError, match=r"requests\[0\] of the warm-up: input x has 4 values, but the shape \[3\]"):
        read_manifest_requests(Warmup.model_validate({"requests": [wrong]}))
    mapped = parse_config_map(
        "wake", {"one.json": '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}'}
    )
    assert mapped[0].inputs[0].tensor.tolist() == [1.0]
    with pytest.raises(CommandError, match=r"key one\.json of ConfigMap wake is not an inference request"):
        parse_config_map("wake", {"one.json": "[]"})
    with pytest.raises(CommandError, match=r"key one\.json of ConfigMap wake is not an inference request"):
        parse_config_map("wake", {"one.json": "[" * 100_000})


async def test_requests_beyond_the_concurrency_are_late() -> None:
    release, sent = asyncio.Event(), 0

    async def send() -> None:
        nonlocal sent
        sent += 1
        await release.wait()

    loop = Driver(send, 2)
    running = asyncio.create_task(loop.run([0.0] * 5, asyncio.Event()))
    while len(loop.outcomes) < 3:  # noqa: ASYNC110  the loop's own clock brings it about
        await asyncio.sleep(0.01)
    assert (sent, loop.scheduled, loop.in_flight) == (2, 5, 2)
    release.set()
    await running
    assert [outcome.verdict for outcome in loop.outcomes] == ["late"] * 3 + ["answered"] * 2
    assert {outcome.reason for outcome in loop.outcomes if outcome.verdict == "late"} == {IN_FLIGHT}


async def test_a_client_that_is_behind_is_the_reason_of_late_requests() -> None:
    async def send() -> None:
        time.sleep(0.05)  # noqa: ASYNC251  it blocks the loop, as a slow machine does

    loop = Driver(send, 512)
    await loop.run([0.0] * 100, asyncio.Event())
    late = [outcome for outcome in loop.outcomes if outcome.verdict == "late"]
    assert {outcome.reason for outcome in late} == {CLIENT}
    assert len(loop.outcomes) == loop.scheduled == 100
    assert max(outcome.delay for outcome in loop.outcomes) > 1


async def test_a_stop_sends_no_more_requests_and_waits_for_the_answers() -> None:
    stop = asyncio.Event()

    async def send() -> None:
        stop.set()
        await asyncio.sleep(0)

    loop = Driver(send, 2)
    await loop.run([0.0, 3600.0], stop)
    assert [outcome.verdict for outcome in loop.outcomes] == ["answered"]
    assert loop.scheduled == 1


@pytest.mark.parametrize(("suffix", "begins"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_the_suffix_of_the_file_selects_the_format_of_the_plot(suffix: str, begins: bytes, tmp_path: Path) -> None:
    file = tmp_path / f"run{suffix}"
    drawn = plot.draw_figure("magika", build_series(OUTCOMES, [ReplicaSample(1.5, 1, 2)]))
    plot.save_figure(drawn, file)
    assert file.read_bytes().startswith(begins)
    requests, latency, replicas_axes = drawn.axes
    assert [line.get_label() for line in requests.lines] == ["scheduled", "answered", "failed", "late"]
    assert np.asarray(requests.lines[0].get_ydata()).tolist() == [3, 2, 0]
    assert [line.get_label() for line in latency.lines] == ["p50", "p99"]
    assert [line.get_label() for line in replicas_axes.lines] == ["desired", "ready"]
    assert np.asarray(replicas_axes.lines[1].get_ydata())[1:].tolist() == [1, 1]


def test_a_run_without_an_answer_has_a_plot(tmp_path: Path) -> None:
    plot.save_figure(plot.draw_figure("nothing", build_series([], [])), tmp_path / "nothing.png")
    plot.save_figure(
        plot.draw_figure("failed", build_series([Outcome(0, 1, 0, "failed", "no")], [])), tmp_path / "failed.png"
    )
    assert (tmp_path / "failed.png").stat().st_size > 0


def test_a_missing_package_is_named_as_pip_installs_it() -> None:
    extras.import_extras("load", {**extras.CLIENT, **extras.PLOT})
    with pytest.raises(CommandError) as refused:
        extras.import_extras("load", {"numpy": "numpy", "conch_no_such_module.aio": "no-such-module[grpc]"})
    assert "pip install 'no-such-module[grpc]'" in refused.value.message


def test_other_commands_import_none_of_the_packages_of_load() -> None:
    program = (
        "import sys, conch.cli.main; print(sorted({'numpy', 'tritonclient', 'matplotlib', 'grpc'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--rate", "0"), "--rate 0 has no requests"),
        (("--rate", "5", "--plot", "run.gif"), "--plot run.gif: expected a file that ends with .png, .svg, .pdf"),
        (("--rate", "5", "--plot", "no/such/folder/run.png"), "there is no folder"),
        (("--rate", "5", "--timeout", "10"), "--timeout '10' is not a duration"),
        (("--rate", "5", "--port-forward", "--url", "here:1"), "--url and --port-forward exclude each other"),
        (("--rate", "5", "--header", "beta"), "--header beta: expected NAME: VALUE"),
        (("--rate", "5", "--concurrency", "0"), "--concurrency"),
        ((), "--rate"),
    ],
)
def test_load_refuses_invalid_options_before_the_first_request(words: tuple[str, ...], message: str) -> None:
    done = CliRunner().invoke(cli, ["load", "magika", *words])
    assert done.exit_code != 0
    assert message in done.output
