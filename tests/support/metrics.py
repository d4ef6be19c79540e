"""Triton's own counters, read from a pod's metrics port as Prometheus reads them."""

from __future__ import annotations

import re
import urllib.request

from conch_contract import names
from tests.support.kube import Object

_LINE = re.compile(r"^(?P<name>\w+)\{(?P<labels>[^}]*)\} (?P<value>\S+)$", re.MULTILINE)


def answered(pod: Object, model: str) -> int:
    """Return how many requests for a model a pod has answered."""
    return _count(pod, model, "nv_inference_request_success")


def failed(pod: Object, model: str) -> int:
    """Return how many requests for a model a pod has answered with an error."""
    return _count(pod, model, "nv_inference_request_failure")


def waiting(pod: Object, model: str) -> int:
    """Return how many requests for a model wait in a pod for their turn."""
    return _count(pod, model, "nv_inference_pending_request_count")


def _count(pod: Object, model: str, counter: str) -> int:
    url = f"http://{pod['status']['podIP']}:{names.METRICS_PORT}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    return sum(
        int(float(line["value"]))
        for line in _LINE.finditer(text)
        if line["name"] == counter and f'model="{model}"' in line["labels"]
    )
