"""The documents that the metrics API returns. Pure; fields as in `k8s.io/metrics` and `meta/v1`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from conch.api.kinds import INFERENCE_SERVICE, POD, Kind
from conch.api.metrics import METRICS_GROUP, METRICS_VERSION, TritonMetric
from conch.api.quantity import format_quantity
from conch.metrics.query import NAMESPACES, PODS, SERVICES

Document = Mapping[str, Any]

_NAMESPACE = Kind("", "v1", "Namespace", "namespaces")
_KINDS = {PODS: POD, SERVICES: INFERENCE_SERVICE, NAMESPACES: _NAMESPACE}


@dataclass(frozen=True)
class Value:
    """A metric of one object."""

    name: str
    value: float
    seconds: float  # of the window


def build_group() -> Document:
    """Return the APIGroup with its only version."""
    version = {"groupVersion": f"{METRICS_GROUP}/{METRICS_VERSION}", "version": METRICS_VERSION}
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": METRICS_GROUP,
        "versions": [version],
        "preferredVersion": version,
    }


def build_resources() -> Document:
    """Return the APIResourceList: each metric of each kind of object."""
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{METRICS_GROUP}/{METRICS_VERSION}",
        "resources": [
            {
                "name": f"{resource}/{metric.value}",
                "singularName": "",
                "namespaced": resource != NAMESPACES,
                "kind": "MetricValueList",
                "verbs": ["get"],
            }
            for resource in _KINDS
            for metric in TritonMetric
        ],
    }


def build_openapi() -> Document:
    """Return an OpenAPI document without paths. Without a document, an API server repeats its request for ever."""
    return {"swagger": "2.0", "info": {"title": METRICS_GROUP, "version": METRICS_VERSION}, "paths": {}}


def build_openapi_index() -> Document:
    """Return the index of OpenAPI 3 documents, empty for the same reason."""
    return {"paths": {}}


def build_values(resource: str, namespace: str, metric: TritonMetric, found: Iterable[Value], now: float) -> Document:
    """Return a MetricValueList; `now` in seconds since the epoch."""
    kind = _KINDS[resource]
    where = {} if resource == NAMESPACES else {"namespace": namespace}
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "kind": "MetricValueList",
        "apiVersion": f"{METRICS_GROUP}/{METRICS_VERSION}",
        "metadata": {},
        "items": [
            {
                "describedObject": {
                    "kind": kind.name,
                    **where,
                    "name": value.name,
                    "apiVersion": kind.api_version,
                },
                "metric": {"name": metric.value, "selector": None},
                "timestamp": moment,
                "windowSeconds": round(value.seconds),
                "value": format_quantity(value.value),
            }
            for value in found
        ],
    }


def build_failure(code: int, reason: str, message: str) -> Document:
    """Return a metav1.Status, which clients show to users."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
