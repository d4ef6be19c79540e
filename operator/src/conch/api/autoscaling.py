"""How many pods there are: autoscaling/v2 in its own words, handed on to the HorizontalPodAutoscaler."""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from conch.api._base import Part, Passed
from conch.api.cel import Rule, rules

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
    resource: Passed | None = None
    """CPU or memory of the pods (ResourceMetricSource)."""
    container_resource: Passed | None = None
    """CPU or memory of one container of the pods (ContainerResourceMetricSource)."""
    pods: Passed | None = None
    """A custom metric of the pods (PodsMetricSource)."""
    object: Passed | None = None
    """A metric of another object (ObjectMetricSource)."""
    external: Passed | None = None
    """A metric from outside the cluster (ExternalMetricSource)."""


class Behavior(Part):
    """How fast pods come and go (HorizontalPodAutoscalerBehavior of autoscaling/v2)."""

    scale_up: Passed | None = None
    """Upwards (HPAScalingRules)."""
    scale_down: Passed | None = None
    """Downwards (HPAScalingRules)."""


class Autoscaling(Part):
    """What the HorizontalPodAutoscaler looks at, and how fast it acts."""

    metrics: Annotated[tuple[Metric, ...], Field(max_length=16)] = ()
    """MetricSpecs of autoscaling/v2; the largest answer wins. Empty: 80 % of the CPU request."""
    behavior: Behavior | None = None
    """How fast pods come and go. Absent: Kubernetes' defaults."""
