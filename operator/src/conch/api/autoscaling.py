"""Autoscaling of pods: metrics of Triton, metrics of autoscaling/v2, and triggers of KEDA."""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from conch.api._base import DurationText, ObjectName, Part, duration_rule
from conch.api.cel import Rule, rules
from conch.api.kubernetes import (
    ContainerResourceMetricSource,
    ExternalMetricSource,
    HPAScalingRules,
    ObjectMetricSource,
    PodsMetricSource,
    ResourceMetricSource,
)
from conch.api.numbers import Percent
from conch.api.quantity import Quantity, cel_is_quantity

_SOURCES: Final = {
    "Resource": "resource",
    "ContainerResource": "containerResource",
    "Pods": "pods",
    "Object": "object",
    "External": "external",
}
_FIELDS: Final = "[" + ", ".join(f"has(self.{field})" for field in _SOURCES.values()) + "]"
_MATCH: Final = " || ".join(f"(self.type == '{kind}' && has(self.{field}))" for kind, field in _SOURCES.items())


class Metric(Part):
    """A MetricSpec of autoscaling/v2: a type, and the field with the name of the type."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                f"{_FIELDS}.filter(set, set).size() == 1 && ({_MATCH})",
                message="a metric has type and the one field of that type: resource, containerResource, pods, object or"
                " external; add that field, remove the others, or change type",
            ),
        )
    )

    type: Literal["Resource", "ContainerResource", "Pods", "Object", "External"]
    """Source of the metric: Resource, ContainerResource, Pods, Object or External."""
    resource: ResourceMetricSource | None = None
    """CPU or memory of the pods (ResourceMetricSource), with type Resource."""
    container_resource: ContainerResourceMetricSource | None = None
    """CPU or memory of one container of the pods (ContainerResourceMetricSource), with type ContainerResource."""
    pods: PodsMetricSource | None = None
    """Custom metric of the pods (PodsMetricSource), with type Pods."""
    object: ObjectMetricSource | None = None
    """Metric of another object (ObjectMetricSource), with type Object."""
    external: ExternalMetricSource | None = None
    """Metric from outside the cluster (ExternalMetricSource), with type External."""


class Behavior(Part):
    """Scaling behavior (HorizontalPodAutoscalerBehavior of autoscaling/v2)."""

    scale_up: HPAScalingRules | None = None
    """Policies for adding pods (HPAScalingRules)."""
    scale_down: HPAScalingRules | None = None
    """Policies for removing pods (HPAScalingRules)."""


SEEN_WITHOUT_PODS: Final = "(has({0}.triggers) && {0}.triggers.exists(t, !(t.type in ['cpu', 'memory'])))"
NEEDS_TRIGGERS: Final = "scaling to zero needs KEDA and a trigger other than cpu and memory"


class AuthenticationRef(Part):
    """Reference to a KEDA object with credentials."""

    name: ObjectName
    """Name of the TriggerAuthentication or ClusterTriggerAuthentication."""
    kind: Literal["TriggerAuthentication", "ClusterTriggerAuthentication"] | None = None
    """TriggerAuthentication or ClusterTriggerAuthentication. Absent: TriggerAuthentication."""


class Trigger(Part):
    """A ScaleTrigger of KEDA."""

    type: Annotated[str, Field(min_length=1, max_length=64)]
    """Type of KEDA's scaler, such as prometheus, kafka or cron."""
    metadata: Annotated[dict[str, Annotated[str, Field(max_length=16384)]] | None, Field(max_length=64)] = None
    """Settings of the scaler. All values are strings."""
    name: Annotated[str | None, Field(max_length=63)] = None
    """Name of the trigger, unique among the triggers of the list."""
    authentication_ref: AuthenticationRef | None = None
    """Reference to the KEDA object with the credentials of the trigger."""
    metric_type: Literal["AverageValue", "Value", "Utilization"] | None = None
    """How KEDA compares the metric with its target: AverageValue (for each pod), Value or Utilization. Absent:
    AverageValue."""
    use_cached_metrics: bool | None = None
    """True: KEDA reads the metric at its polling interval only. Absent: false."""


def _above_zero(field: str, example: str) -> Rule:
    """Return the rule that a target, by which the autoscaler divides, is above 0."""
    return Rule(
        f"!{cel_is_quantity('self')} || quantity(string(self)).isGreaterThan(quantity('0'))",
        message=f"{field} must be above 0, since it is the target for each pod; write a larger one, such as {example}",
    )


class Autoscaling(Part):
    """Metrics and behavior of the HorizontalPodAutoscaler.

    Targets are averages of all pods of a revision. The metric that needs the most pods decides.
    """

    queue_to_compute_ratio: Annotated[Quantity | None, _above_zero("queueToComputeRatio", "1")] = None
    """Target of the ratio of queue time to compute time in Triton, as a quantity. 1: requests wait in the queue for as
    long as Triton computes them, which is a utilization of about two thirds."""
    pending_requests: Annotated[Quantity | None, _above_zero("pendingRequests", "4")] = None
    """Target of the number of requests in Triton's queues, for each pod."""
    requests_per_second: Annotated[Quantity | None, _above_zero("requestsPerSecond", "100")] = None
    """Target of the number of requests per second, failed ones included, for each pod."""
    inference_latency: Annotated[DurationText | None, duration_rule(low="1us", example="50ms")] = None
    """Target of the mean latency of requests in Triton, queue time included, such as 50ms."""
    gpu_utilization: Annotated[
        Percent | None,
        Rule("self.matches('[1-9]')", message="gpuUtilization must be above 0%; write a larger share, such as 70%"),
    ] = None
    """Target of the GPU utilization in percent, such as 70%. The pods need a GPU."""
    metrics: Annotated[tuple[Metric, ...], Field(max_length=16)] = ()
    """Metrics of autoscaling/v2 (MetricSpec). Without any metric and trigger: queueToComputeRatio 1, and 80 % CPU
    utilization if the pods request CPU and have no GPU."""
    triggers: Annotated[tuple[Trigger, ...], Field(min_length=1, max_length=16)] = ()
    """Triggers of KEDA (ScaleTrigger), if Conch is installed with KEDA. minReplicas may be 0 if one of them is neither
    of type cpu nor of type memory."""
    behavior: Behavior | None = None
    """Scaling behavior. Absent: the defaults of Kubernetes. With KEDA, scaleDown.stabilizationWindowSeconds is also the
    time after which the last pod ends if no trigger is active."""
