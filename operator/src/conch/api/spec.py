"""What the user asks for. The operator never writes it; defaults stand here and in the CRD's schema."""

from typing import Annotated

from pydantic import ConfigDict, Field

from conch.api._base import DURATION_PATTERN, Duration, Part, duration_seconds
from conch.api.autoscaling import Autoscaling
from conch.api.cel import Rule, rules
from conch.api.model import Model
from conch.api.pod import Pod, Resources
from conch.api.triton import Triton


class Predictor(Part):
    """The model, how Triton serves it, and on how many pods of which kind."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "!has(self.maxReplicas) || self.maxReplicas >= self.minReplicas",
                message="maxReplicas must be at least minReplicas; raise maxReplicas or lower minReplicas",
                expression="'maxReplicas %d is below minReplicas %d; raise maxReplicas or lower minReplicas'"
                ".format([self.maxReplicas, self.minReplicas])",
                path=".maxReplicas",
            ),
            Rule(
                "!has(self.autoscaling) || (has(self.maxReplicas) && self.maxReplicas > self.minReplicas)",
                message="there is nothing to scale: autoscaling needs maxReplicas above minReplicas;"
                " set maxReplicas or remove autoscaling",
                path=".autoscaling",
            ),
            Rule(
                "!has(self.triton) || !has(self.triton.instanceGroups)"
                " || !self.triton.instanceGroups.exists(group, group.kind == 'GPU')"
                " || (has(self.resources) && has(self.resources.limits) && self.resources.limits.exists(r,"
                " r.startsWith('nvidia.com/') && string(self.resources.limits[r]) != '0'))",
                message="an instance group of kind GPU needs a GPU; set resources.limits['nvidia.com/gpu']"
                " to at least 1, or the group's kind to CPU or AUTO",
                path=".triton.instanceGroups",
            ),
            Rule(
                "!has(self.triton) || !has(self.triton.instanceGroups)"
                " || self.triton.instanceGroups.all(group, !has(group.gpus) || group.gpus.all(gpu,"
                " has(self.resources) && has(self.resources.limits) && self.resources.limits.exists(r,"
                " r.startsWith('nvidia.com/') && string(self.resources.limits[r]).matches('^[0-9]{1,4}$')"
                " && int(self.resources.limits[r]) > gpu)))",
                message="gpus counts the container's GPUs from 0, so each must be below"
                " resources.limits['nvidia.com/gpu']; lower it or raise the limit",
                path=".triton.instanceGroups",
            ),
        )
    )

    model: Model
    """Which model is served, and where its files are."""
    triton: Triton = Triton()
    """How Triton serves it."""
    resources: Resources = Resources()
    """What Triton's container asks of the node."""
    min_replicas: Annotated[
        int,
        Field(le=10_000),
        Rule(
            "self >= 1",
            message="minReplicas must be at least 1: scaling to zero needs KEDA,"
            " which Conch does not drive yet; set 1 or more",
        ),
    ] = 1
    """The number of pods, and with autoscaling the smallest one."""
    max_replicas: Annotated[int | None, Field(ge=1, le=10_000)] = None
    """The largest number of pods. Absent: minReplicas, so that nothing is scaled."""
    autoscaling: Autoscaling | None = None
    """What the number of pods follows."""
    pod: Pod = Pod()
    """What goes into the pods besides the model."""

    @property
    def scales(self) -> bool:
        """Whether a HorizontalPodAutoscaler owns the number of pods."""
        return self.max_replicas is not None and self.max_replicas > self.min_replicas


class Rollout(Part):
    """How a change of the predictor reaches users."""

    progress_deadline: Annotated[
        Duration,
        Rule(
            f"!self.matches('{DURATION_PATTERN}') || duration(self) >= duration('1s')",
            message="progressDeadline must be at least 1s, such as 15m",
        ),
    ] = "15m"
    """How long a new revision may take without progress before it counts as failed."""
    history_limit: Annotated[int, Field(ge=0, le=100)] = 10
    """How many retired revisions are kept to go back to."""

    @property
    def progress_deadline_seconds(self) -> float:
        """The progress deadline in seconds."""
        return duration_seconds(self.progress_deadline)


class Spec(Part):
    """What the user asks for."""

    predictor: Predictor
    """The model, how Triton serves it, and on how many pods of which kind."""
    rollout: Rollout = Rollout()
    """How a change of the predictor reaches users."""
