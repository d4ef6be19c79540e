"""Triton's traces of requests: the flags that export them to an OpenTelemetry collector.

OpenTelemetry's names of attributes: https://opentelemetry.io/docs/specs/semconv/resource/k8s/
"""

import shlex
from typing import Final

from conch.api import InferenceService

# Variable of Triton's container with the name of the pod.
POD_NAME_VARIABLE: Final = "CONCH_POD_NAME"
# Spans in an export, as many as Triton keeps: when it ends, at most two exports remain, the one that runs and the rest.
# Each lasts 10 s if the collector does not answer.
_BATCH_SIZE: Final = 2048


def build_trace_flags(service: InferenceService, workload: str) -> list[str]:
    """Return the flags of tritonserver by which it exports traces, as words of a shell; empty: the spec has no tracing.

    Args:
        service: The service.
        workload: Name of the Deployment. A pod keeps it when it changes its revision.
    """
    tracing = service.spec.predictor.triton.tracing
    if tracing is None:
        return []
    attributes = {
        "service.name": service.metadata.name,
        "k8s.namespace.name": service.metadata.namespace,
        "k8s.deployment.name": workload,
    }
    settings = [
        "mode=opentelemetry",
        "level=TIMESTAMPS",  # the only level of this mode
        f"rate={tracing.rate}",
        f"opentelemetry,url={tracing.url}",
        f"opentelemetry,bsp_max_export_batch_size={_BATCH_SIZE}",
        *(f"opentelemetry,resource={name}={value}" for name, value in attributes.items()),
    ]
    flags = [shlex.quote(f"--trace-config={setting}") for setting in settings]
    return [*flags, f'"--trace-config=opentelemetry,resource=k8s.pod.name=${POD_NAME_VARIABLE}"']
