"""The rules for prometheus-adapter, filled in like the adapter, in a real Prometheus that scrapes real Tritons."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from conch.api.metrics import TritonMetric
from conch.triton.adapter import build_rules
from tests.cluster import packages
from tests.serving.processes import Process, until
from tests.serving.slow import MODEL, WITH_GPU, SlowTriton
from tests.support.ports import free_port

BUSY, IDLE = "127.0.0.95", "127.0.0.96"
PODS = {"busy": BUSY, "idle": IDLE}


@dataclass(frozen=True)
class Watched:
    """Two Tritons, and the Prometheus that reads them every second, with the labels that a PodMonitor gives."""

    tritons: Mapping[str, SlowTriton]
    url: str

    def query(self, promql: str) -> dict[str, float]:
        """Return an instant vector, by pod."""
        form = urllib.parse.urlencode({"query": promql}).encode()
        with urllib.request.urlopen(f"{self.url}/api/v1/query", form, timeout=10) as answer:  # noqa: S310
            found = json.load(answer)["data"]["result"]
        return {one["metric"].get("pod", ""): float(one["value"][1]) for one in found}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    packages.ensure({"prometheus": "prometheus"})
    metrics, port, root = free_port(), free_port(), tmp_path_factory.mktemp("prometheus")
    tritons = {
        name: SlowTriton(tmp_path_factory.mktemp(name), ip, metrics, WITH_GPU if name == "busy" else MODEL)
        for name, ip in PODS.items()
    }
    targets = [
        {"targets": [f"{ip}:{metrics}"], "labels": {"namespace": "demo", "pod": name}} for name, ip in PODS.items()
    ]
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": "triton", "static_configs": targets}],
    }
    server = _start(root, config, port)
    watched = Watched(tritons, f"http://127.0.0.1:{port}")
    until(lambda: _answers(watched), "Prometheus has read both", server)
    yield watched
    server.stop(5)
    for triton in tritons.values():
        triton.process.kill()


def _start(root: Path, config: object, port: int) -> Process:
    (root / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    command = [
        "prometheus",
        f"--config.file={root / 'prometheus.yml'}",
        f"--storage.tsdb.path={root / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    return Process(command, root / "prometheus.log", {"PATH": "/usr/bin:/bin", "HOME": str(root)})


def _answers(watched: Watched) -> bool:
    try:
        return len(watched.query("nv_inference_pending_request_count")) == len(PODS)
    except OSError:
        return False


def filled(metric: TritonMetric, *pods: str) -> str:
    """Return a rule's query as the adapter fills it in for some pods (its docs/config.md, "Metrics Query")."""
    (rule,) = [rule for rule in build_rules() if rule["name"]["as"] == metric]
    matchers = f'namespace="demo",pod=~"{"|".join(pods)}"'
    query: str = rule["metricsQuery"]
    return query.replace("<<.LabelMatchers>>", matchers).replace("<<.GroupBy>>", "pod")


@pytest.mark.parametrize("metric", TritonMetric)
def test_the_series_by_which_a_metric_is_known_is_there(watched: Watched, metric: TritonMetric) -> None:
    (rule,) = [rule for rule in build_rules() if rule["name"]["as"] == metric]
    has_gpu = {"busy"} if metric == TritonMetric.GPU_UTILIZATION else set(PODS)
    assert set(watched.query(rule["seriesQuery"])) == has_gpu


async def test_each_pod_has_its_own_series(watched: Watched) -> None:
    await watched.tritons["busy"].send(0.05, times=60)
    rps = TritonMetric.REQUESTS_PER_SECOND
    until(lambda: watched.query(filled(rps, *PODS)).get("busy", 0) > 0, "the requests were read")
    assert watched.query(filled(rps, *PODS))["idle"] == 0
    assert set(watched.query(filled(rps, "idle"))) == {"idle"}
    latency = watched.query(filled(TritonMetric.INFERENCE_LATENCY, *PODS))
    assert 0.05 <= latency["busy"] < 0.2
    assert latency["idle"] == 0
    ratio = watched.query(filled(TritonMetric.QUEUE_TO_COMPUTE_RATIO, *PODS))
    assert 0 <= ratio["busy"] < 1, "one after the other: none waits long"
    assert watched.query(filled(TritonMetric.PENDING_REQUESTS, *PODS)) == {"busy": 0, "idle": 0}
    assert watched.query(filled(TritonMetric.GPU_UTILIZATION, *PODS)) == {"busy": 0.75}
