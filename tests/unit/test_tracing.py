"""Traces: one field sets the flags of Triton and the variable with the name of its pod."""

import subprocess
from typing import Any

import pytest

from conch.api import InferenceService
from conch.desire.pod import build_pod_template
from conch.triton import POD_NAME_VARIABLE
from conch_agent.settings import parse_arguments
from tests.unit.simulation import DEFAULTS, Cluster, build_manifest

URL = "http://collector.monitoring:4318/v1/traces"


def build_triton(tracing: dict[str, Any] | None, **predictor: Any) -> dict[str, Any]:
    """Return the container of Triton."""
    triton = {"tracing": tracing} if tracing else {}
    service = InferenceService.parse(build_manifest(triton=triton, **predictor))
    container: dict[str, Any]
    [container] = build_pod_template(service, "magika-bcdfghjklm", DEFAULTS)["spec"]["containers"]
    return container


def list_settings(container: dict[str, Any]) -> list[str]:
    """Return the values of --trace-config that a shell passes to Triton, in a pod named magika-x."""
    [script] = [word for word in container["command"] if "exec tritonserver" in word]
    words = script.partition("exec tritonserver ")[2]
    command = ["/bin/sh", "-c", f"printf '%s\\n' {words}", "sh"]
    env = {POD_NAME_VARIABLE: "magika-x", "PATH": "/usr/bin:/bin"}
    lines = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout.splitlines()
    return [line.removeprefix("--trace-config=") for line in lines if line.startswith("--trace-config=")]


@pytest.mark.parametrize(("fields", "rate"), [({}, 1000), ({"rate": 0}, 0), ({"rate": 1}, 1)])
def test_one_field_sets_the_flags_and_the_name_of_the_pod(fields: dict[str, int], rate: int) -> None:
    container = build_triton({"url": URL, **fields}, pod={"env": [{"name": "OTEL_BSP_SCHEDULE_DELAY", "value": "1"}]})
    assert list_settings(container) == [
        "mode=opentelemetry",
        "level=TIMESTAMPS",
        f"rate={rate}",
        f"opentelemetry,url={URL}",
        "opentelemetry,bsp_max_export_batch_size=2048",
        "opentelemetry,resource=service.name=magika",
        "opentelemetry,resource=k8s.namespace.name=demo",
        "opentelemetry,resource=k8s.deployment.name=magika-bcdfghjklm",
        "opentelemetry,resource=k8s.pod.name=magika-x",
    ]
    assert container["env"] == [
        {"name": POD_NAME_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "OTEL_BSP_SCHEDULE_DELAY", "value": "1"},
    ]


def test_rates_of_models_are_options_of_the_agent() -> None:
    rates = {"magika": 1, "labels": 0}
    service = InferenceService.parse(build_manifest(triton={"tracing": {"url": URL, "modelRates": rates}}))
    [agent] = build_pod_template(service, "magika-bcdfghjklm", DEFAULTS)["spec"]["initContainers"]
    assert agent["command"] == ["conch-agent", "--trace-rate=magika=1", "--trace-rate=labels=0"]
    assert parse_arguments(agent["command"][1:]).trace_rates == rates


def test_without_the_field_there_is_neither() -> None:
    container = build_triton(None)
    assert list_settings(container) == []
    assert "env" not in container


def test_a_url_is_one_word_of_the_shell_whatever_it_has() -> None:
    settings = list_settings(build_triton({"url": "http://[fd00::1]:4318/a'b$(id)*"}))
    assert settings[3] == "opentelemetry,url=http://[fd00::1]:4318/a'b$(id)*"


def test_another_collector_takes_pods_of_its_own() -> None:
    for after in ({"url": URL, "rate": 1}, None):
        manifest = build_manifest(minReplicas=2, triton={"tracing": {"url": URL}}, rollout={"strategy": "Swap"})
        cluster = Cluster(manifest)
        cluster.reports_on_request = True
        cluster.reconcile()
        cluster.start_pods(cluster.decision().wanted)
        cluster.settle()
        cluster.edit(triton={"tracing": after} if after else {"shmSize": "64Mi"})
        cluster.settle()
        assert cluster.status.rollout is not None
        assert "triton.tracing" in cluster.status.rollout.swap_obstacle
