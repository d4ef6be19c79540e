"""`kubectl conch load` as a user types it, from outside the cluster: it sends, reports, draws, and is interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from conch_contract import names
from tests.e2e.conftest import manifest
from tests.support import conch
from tests.support.place import Place
from tests.support.service import Service

Start = Callable[..., "subprocess.Popen[str]"]
_SECONDS = 90


@pytest.fixture(scope="module")
def service(place: Place, shared_namespace: str) -> Service:
    """Magika on one pod."""
    place.kube.apply(manifest("loaded"), shared_namespace)
    found = Service(place.kube, shared_namespace, "loaded")
    found.until_ready()
    return found


@pytest.fixture
def start(place: Place, service: Service) -> Start:
    """Return a hand that types `kubectl conch load loaded ...`."""

    def begin(*words: str) -> subprocess.Popen[str]:
        return conch.start(place, "load", service.name, f"--namespace={service.namespace}", *words)

    return begin


def adds_up(value: dict[str, Any]) -> bool:
    """Whether each request has become something, in the whole and second by second."""
    whole = value["scheduled"] == value["answered"] + value["failed"] + value["late"]
    each = [sum(second[name] for second in value["series"]) for name in ("scheduled", "answered", "failed", "late")]
    return whole and each == [value[name] for name in ("scheduled", "answered", "failed", "late")]


def all_answered(value: dict[str, Any]) -> bool:
    """Whether the service answered all that was sent: what this client was too slow to send is the machine's doing."""
    return value["answered"] > 0 and not conch.count_unserved(value)


def test_a_short_run_through_a_port_forward(
    start: Start, service: Service, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    picture = tmp_path / "run.svg"
    running = start("--rate=20", "--duration=10s", "--port-forward", "-o", "json", f"--plot={picture}")
    output, errors = running.communicate(timeout=_SECONDS)
    value = json.loads(output)
    assert (value["model"], value["protocol"], value["scheduled"]) == ("loaded", "grpc", 200), errors
    assert adds_up(value), value
    assert all_answered(value), output
    assert running.returncode == (1 if value["late"] else 0), errors
    assert value["endpoint"] == f"through the API server, to the ready pods of {service.name}"
    assert value["replicas"] == {name: {"first": 1, "most": 1, "last": 1} for name in ("ready", "desired")}
    assert 0 < value["latencyMilliseconds"]["p50"] <= value["latencyMilliseconds"]["p99"]
    assert "1 ready of 1 desired replicas" in errors
    assert picture.read_text().startswith("<?xml")
    latency = value["latencyMilliseconds"]
    figure(f"{value['answeredPerSecond']}/s through the API server, p50 {latency['p50']} ms, p99 {latency['p99']} ms")


@pytest.mark.parametrize(("protocol", "port"), [("grpc", names.GRPC_PORT), ("http", names.HTTP_PORT)])
def test_an_address_that_can_be_reached(protocol: str, port: int, start: Start, place: Place, service: Service) -> None:
    # The local cluster's Services have routes from here, but no names.
    running = start("--rate=5..30", "--duration=4s", f"--protocol={protocol}", "-o", "yaml")
    output, errors = running.communicate(timeout=_SECONDS)
    value = yaml.safe_load(output)
    with place.reach(service.namespace, service.name, port) as [address]:
        assert (value["scheduled"], value["endpoint"]) == (70, f"http://{address}"), errors
    assert adds_up(value), value
    assert all_answered(value), output
    assert running.returncode == (1 if value["late"] else 0), errors


def test_ctrl_c_ends_it_early_with_what_was_seen(start: Start, tmp_path: Path) -> None:
    picture = tmp_path / "run.png"
    running = start("--rate=10", "--duration=1h", f"--plot={picture}")
    assert running.stdout is not None
    lines = iter(running.stdout.readline, "")
    assert any(" answered (" in line for line in lines), "it began"
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to kubectl, and to all that it started
    output, errors = running.communicate(timeout=_SECONDS)
    assert "Ended early: 10 requests a second were scheduled for 1h" in output, errors
    assert " 0 failed, " in output
    assert running.returncode == (0 if " 0 late" in output else 1), output
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--url=127.0.0.1:9",), "127.0.0.1:9 does not describe the model loaded: "),
        (("--variant=int8",), "loaded has no variant 'int8'"),
    ],
)
def test_a_target_that_cannot_be_reached_is_reported(start: Start, words: tuple[str, ...], error: str) -> None:
    running = start("--rate=5", *words)
    _, errors = running.communicate(timeout=_SECONDS)
    assert running.returncode == 1
    assert error in errors
