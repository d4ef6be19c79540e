"""How many pods there are: autoscaling/v2's and KEDA's own words, and words for what Triton feels."""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from conch.api._base import UNREADABLE, Duration, ObjectName, Part
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
    """A MetricSpec of autoscaling/v2: a type, and the field of that name."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                f"{_FIELDS}.filter(set, set).size() == 1 && ({_MATCH})",
                message="a metric has, beside type, exactly the one field that is named after it: resource,"
                " containerResource, pods, object or external; add it, remove the others, or change type",
            ),
        )
    )

    type: Literal["Resource", "ContainerResource", "Pods", "Object", "External"]
    """Where the number comes from."""
    resource: ResourceMetricSource | None = None
    """CPU or memory of the pods (ResourceMetricSource)."""
    container_resource: ContainerResourceMetricSource | None = None
    """CPU or memory of one container of the pods (ContainerResourceMetricSource)."""
    pods: PodsMetricSource | None = None
    """A custom metric of the pods (PodsMetricSource)."""
    object: ObjectMetricSource | None = None
    """A metric of another object (ObjectMetricSource)."""
    external: ExternalMetricSource | None = None
    """A metric from outside the cluster (ExternalMetricSource)."""


class Behavior(Part):
    """How fast pods come and go (HorizontalPodAutoscalerBehavior of autoscaling/v2)."""

    scale_up: HPAScalingRules | None = None
    """Upwards (HPAScalingRules)."""
    scale_down: HPAScalingRules | None = None
    """Downwards (HPAScalingRules)."""


SEEN_WITHOUT_PODS: Final = "(has({0}.triggers) && {0}.triggers.exists(t, !(t.type in ['cpu', 'memory'])))"
NEEDS_TRIGGERS: Final = "scaling to zero needs KEDA and a trigger that is seen without pods"


class AuthenticationRef(Part):
    """An object of KEDA that holds credentials."""

    name: ObjectName
    """Its name."""
    kind: Literal["TriggerAuthentication", "ClusterTriggerAuthentication"] | None = None
    """Its kind. Absent: TriggerAuthentication."""


class Trigger(Part):
    """A ScaleTrigger of KEDA."""

    type: Annotated[str, Field(min_length=1, max_length=64)]
    """KEDA's scaler, such as prometheus, kafka or cron."""
    metadata: Annotated[dict[str, Annotated[str, Field(max_length=16384)]] | None, Field(max_length=64)] = None
    """The scaler's settings; their values are text."""
    name: Annotated[str | None, Field(max_length=63)] = None
    """Its name, which no other trigger has."""
    authentication_ref: AuthenticationRef | None = None
    """The TriggerAuthentication with its credentials."""
    metric_type: Literal["AverageValue", "Value", "Utilization"] | None = None
    """How the number is compared. Absent: AverageValue, per pod."""
    use_cached_metrics: bool | None = None
    """Whether KEDA asks at its polling interval alone."""


def _above_zero(field: str, example: str) -> Rule:
    """A target is what numbers are divided by."""
    return Rule(
        f"!{cel_is_quantity('self')} || quantity(string(self)).isGreaterThan(quantity('0'))",
        message=f"{field} must be above 0: it is what each pod shall have at the most; write a larger target, such as"
        f" {example}",
    )


class Autoscaling(Part):
    """What the HorizontalPodAutoscaler looks at, and how fast it acts.

    The targets below are what each pod shall have on average; the largest answer of all wins.
    """

    queue_to_compute_ratio: Annotated[Quantity | None, _above_zero("queueToComputeRatio", "1")] = None
    """How long requests wait in Triton's queues for each second that is computed. 1 is a model that is busy for two
    thirds of its time."""
    pending_requests: Annotated[Quantity | None, _above_zero("pendingRequests", "4")] = None
    """Requests that wait in Triton's queues."""
    requests_per_second: Annotated[Quantity | None, _above_zero("requestsPerSecond", "100")] = None
    """Requests that are answered in a second, those that fail included."""
    inference_latency: Annotated[
        Duration | None,
        Rule(
            f"{UNREADABLE} || duration(self) > duration('0s')",
            message="inferenceLatency must be above 0; write a longer time, such as 50ms",
        ),
    ] = None
    """How long a request takes in Triton, its wait in the queue included."""
    gpu_utilization: Annotated[
        Percent | None,
        Rule("self.matches('[1-9]')", message="gpuUtilization must be above 0%; write a larger share, such as 70%"),
    ] = None
    """The share of the time in which the pod's GPUs are busy."""
    metrics: Annotated[tuple[Metric, ...], Field(max_length=16)] = ()
    """MetricSpecs of autoscaling/v2. With nothing said here, above or in triggers: a queueToComputeRatio of 1, and
    where pods have no GPU and ask for CPU, 80 % of that."""
    triggers: Annotated[tuple[Trigger, ...], Field(min_length=1, max_length=16)] = ()
    """ScaleTriggers of KEDA, where Conch is installed with it. With one that is seen without pods, minReplicas may
    be 0."""
    behavior: Behavior | None = None
    """How fast pods come and go. Absent: Kubernetes' defaults. With KEDA, scaleDown.stabilizationWindowSeconds is
    also how long the last pod stays when no trigger is active."""
