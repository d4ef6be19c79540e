"""Traces of a real Triton: the operator's flags, spans at a collector, and collectors that are not there."""

from __future__ import annotations

import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput

from conch.api import InferenceService
from conch.triton import POD_NAME_VARIABLE, build_trace_flags
from conch_contract import TritonConfig
from tests.serving.collector import Collector
from tests.serving.pod import Pod
from tests.serving.processes import until
from tests.serving.store import Store
from tests.serving.test_config import ENSEMBLE, ONE_ROW
from tests.serving.test_response_cache import multiplier, put

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
CONTEXT = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


def build_flags(url: str, rate: int) -> list[str]:
    """Return the flags of tracing as Triton gets them from the shell of its container."""
    predictor = {
        "model": {"modelFormat": {"name": "onnx"}, "storageUri": "s3://models/m"},
        "triton": {"tracing": {"url": url, "rate": rate}},
    }
    service = {"metadata": {"name": "magika", "namespace": "demo"}, "spec": {"predictor": predictor}}
    words = " ".join(build_trace_flags(InferenceService.model_validate(service), "magika-bcdfghjklm"))
    script, env = f"printf '%s\\n' {words}", {POD_NAME_VARIABLE: "magika-bcdfghjklm-x-y", "PATH": "/usr/bin:/bin"}
    return subprocess.run(["/bin/sh", "-c", script], env=env, check=True, capture_output=True, text=True).stdout.split()


def start(store: Store, pod: Pod, url: str, rate: int, **env: str) -> None:
    pod.write_manifest(multiplier(store, pod, "m", 2, TritonConfig()))
    pod.start_agent()
    pod.start_triton(*build_flags(url, rate), env=env)
    pod.until_ready()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    with collector.run():
        yield collector


def test_a_request_with_a_trace_context_is_part_of_that_trace(store: Store, pod: Pod, collector: Collector) -> None:
    """Rate 0 traces no others. Variables of pod.env configure OpenTelemetry's library in Triton further."""
    team = {"OTEL_RESOURCE_ATTRIBUTES": "team=vision", "OTEL_EXPORTER_OTLP_HEADERS": "authorization=secret"}
    start(store, pod, collector.url, 0, OTEL_BSP_SCHEDULE_DELAY="100", **team)
    for _ in range(3):
        pod.infer("m", ONE_ROW)
    assert pod.infer("m", ONE_ROW, headers=CONTEXT) == {"y": [3, 4]}
    until(lambda: collector.requests, "the span of the request arrives")
    [request] = collector.requests
    [model] = collector.find("m")
    assert {span.trace for span in collector.spans} == {TRACE}
    assert request.parent == PARENT
    assert model.attributes["triton.model_name"] == "m"
    assert {"QUEUE_START", "REQUEST_END"} <= {*model.events}
    resource = {
        "service.name": "magika",
        "k8s.namespace.name": "demo",
        "k8s.deployment.name": "magika-bcdfghjklm",
        "k8s.pod.name": "magika-bcdfghjklm-x-y",
        "team": "vision",
    }
    assert request.resource | resource == request.resource
    assert collector.headers["authorization"] == "secret"
    tensor = InferInput("x", [1, 2], "FP32").set_data_from_numpy(np.ones((1, 2), np.float32))
    other = {"traceparent": CONTEXT["traceparent"].replace("0a", "0b").removesuffix("1") + "0"}
    with InferenceServerClient(f"127.0.0.1:{pod.grpc}") as client:
        client.infer("m", [tensor], headers=other)
        until(lambda: len(collector.requests) > 1, "that over gRPC arrives, although its context is not sampled")
    assert collector.requests[1].trace == TRACE.replace("0a", "0b")


def test_a_rate_selects_requests_and_the_end_of_triton_loses_none(store: Store, pod: Pod, collector: Collector) -> None:
    start(store, pod, collector.url, 2)
    for _ in range(6):
        pod.infer("m", ONE_ROW)
    assert pod.triton
    assert pod.triton.stop() == 0
    assert len(collector.requests) == 3
    assert len({span.trace for span in collector.spans}) == 3


def test_a_model_has_a_rate_of_its_own_also_after_a_restart_of_triton(
    store: Store, pod: Pod, collector: Collector
) -> None:
    """With `modelRates`: all requests to one model, those with a context to another, and none to the third."""
    pod.write_manifest(*(multiplier(store, pod, name, 2, TritonConfig()) for name in ("all", "contexts", "none")))
    pod.start_agent("--trace-rate=all=1", "--trace-rate=none=0", "--trace-rate=nun=0")
    for traces in (1, 2):
        pod.start_triton(*build_flags(collector.url, 0))
        pod.until_ready()
        warnings = {each.reason: each.message for model in pod.report.models for each in model.warnings}
        assert "modelRates has nun, and" in warnings["TraceRateUnused"]
        for name in ("all", "contexts", "none"):
            pod.infer(name, ONE_ROW)
            pod.infer(name, ONE_ROW, headers=CONTEXT)
        assert pod.triton
        assert pod.triton.stop() == 0
        assert [len(collector.find(name)) for name in ("all", "contexts", "none")] == [2 * traces, traces, 0]


def test_the_steps_of_an_ensemble_are_in_its_trace_whatever_their_own_rates(
    store: Store, pod: Pod, collector: Collector
) -> None:
    steps = [multiplier(store, pod, name, 2, TritonConfig()) for name in ("before", "after")]
    ensemble = {"config.pbtxt": ENSEMBLE.replace(b"[-1]", b"[2]") + b"max_batch_size: 4", "1/.keep": b""}
    pod.write_manifest(*steps, put(store, pod, "m", ensemble, TritonConfig(), kind="triton"))
    pod.start_agent("--trace-rate=before=0")
    pod.start_triton(*build_flags(collector.url, 1))
    pod.until_ready()
    assert pod.infer("m", ONE_ROW) == {"y": [6, 8]}
    assert pod.triton
    assert pod.triton.stop() == 0
    assert sorted(span.name for span in collector.spans) == [
        "InferRequest",
        "after",
        "before",
        "compute",
        "compute",
        "m",
    ]
    assert len({span.trace for span in collector.spans}) == 1


def test_clients_do_not_change_what_is_traced(store: Store, pod: Pod, collector: Collector) -> None:
    start(store, pod, collector.url, 0)
    for path in ("/v2/trace/setting", "/v2/models/m/trace/setting"):
        for body in (None, b'{"trace_rate": "1"}'):
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(f"http://127.0.0.1:{pod.http}{path}", body)


@pytest.mark.parametrize("kind", ["refuses", "does not answer", "unknown"])
def test_a_collector_that_is_not_there_holds_nothing(store: Store, pod: Pod, kind: str) -> None:
    """A Triton that ends waits for a collector that does not answer: for one batch, which is all that it has queued."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        if kind == "refuses":
            silent.close()
        host = "no-such-collector.invalid" if kind == "unknown" else "127.0.0.1"
        start(store, pod, f"http://{host}:{port}/v1/traces", 1, OTEL_EXPORTER_OTLP_TIMEOUT="1s")
        for _ in range(800):  # more spans than Triton keeps
            assert pod.infer("m", ONE_ROW) == {"y": [3, 4]}
        assert pod.triton
        assert pod.triton.stop() == 0
        assert "OTLP" in pod.triton.log.read_text()
