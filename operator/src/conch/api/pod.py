"""Settings of the pods of a predictor."""

from typing import Annotated, Final

from pydantic import ConfigDict, Field

from conch.api._base import DurationText, ObjectName, Part, duration_rule, list_map_key
from conch.api.cel import Rule, rules
from conch.api.kubernetes import Affinity, Toleration, TopologySpreadConstraint, with_fields_of
from conch.api.quantity import Quantity, cel_is_quantity

# Prefix of the volumes that the operator adds to a pod, so that they differ from the user's.
OWN_VOLUME_PREFIX: Final = "conch-"

# Longer than the drain (conch.triton.DRAIN_SECONDS), since Kubernetes refuses a drain beyond the grace period.
LEAST_GRACE_SECONDS: Final = 20

Labels = Annotated[
    dict[str, Annotated[str, Field(max_length=63)]],
    Field(max_length=64),
    Rule(
        "self.all(key, !key.startsWith('conch.dev/'))",
        message="labels under conch.dev/ are Conch's own; use another prefix",
    ),
]
Annotations = Annotated[
    dict[str, Annotated[str, Field(max_length=16384)]],
    Field(max_length=64),
    Rule(
        "self.all(key, !key.startsWith('conch.dev/'))",
        message="annotations under conch.dev/ are Conch's own; use another prefix",
    ),
]
NodeLabels = Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=64)]
Amounts = Annotated[dict[str, Quantity], Field(max_length=32)]


# Seconds that a terminating pod needs besides its requests (conch.triton: DRAIN_SECONDS and END_SECONDS).
END_SECONDS: Final = 15

LongestRequest = Annotated[DurationText, duration_rule("1s", "12h", example="2m")]

Grace = Annotated[
    int,
    Field(le=86400),
    Rule(
        f"self >= {LEAST_GRACE_SECONDS}",
        message=f"terminationGracePeriodSeconds must be at least {LEAST_GRACE_SECONDS}, because a terminating pod"
        " drains before Triton ends; raise or remove it",
    ),
]


class Resources(Part):
    """Resources of a container (ResourceRequirements of core/v1, without claims)."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "!has(self.requests) || !has(self.limits) || self.requests.all(r, !(r in self.limits)"
                f" || !{cel_is_quantity('self.requests[r]')} || !{cel_is_quantity('self.limits[r]')}"
                " || quantity(string(self.requests[r])).compareTo(quantity(string(self.limits[r]))) <= 0)",
                message="a request must not exceed its limit; lower the request or raise the limit",
                path=".requests",
            ),
        )
    )

    limits: Amounts = Field(default={})
    """Maximum amounts by resource: cpu, memory, nvidia.com/gpu and others."""
    requests: Amounts = Field(default={})
    """Amounts by resource that the scheduler reserves. Absent for a resource: its limit."""

    @property
    def has_cpu_request(self) -> bool:
        """True if the container requests CPU, without which there is no CPU utilization."""
        return "cpu" in {*self.requests, *self.limits}

    @property
    def has_gpus(self) -> bool:
        """True if the container has a device of the node, such as nvidia.com/gpu."""
        return any("/" in name for name in self.limits)


class LocalObjectReference(Part):
    """Reference to an object in the namespace of the InferenceService."""

    name: ObjectName
    """Name of the object."""


class Variable(Part):
    """An environment variable (EnvVar of core/v1)."""

    model_config = ConfigDict(extra="allow", json_schema_extra=with_fields_of("core.v1.EnvVar"))

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the environment variable."""


def _no_own_volume(remedy: str) -> Rule:
    """Return the rule that a name does not have the prefix of Conch's volumes."""
    message = f"volumes whose name begins with {OWN_VOLUME_PREFIX} are Conch's own; {remedy}"
    return Rule(f"!self.startsWith('{OWN_VOLUME_PREFIX}')", message=message)


class Volume(Part):
    """A volume (Volume of core/v1)."""

    model_config = ConfigDict(extra="allow", json_schema_extra=with_fields_of("core.v1.Volume"))

    name: Annotated[
        str,
        Field(min_length=1, max_length=63),
        _no_own_volume("use another name"),
    ]
    """Name of the volume."""


class VolumeMount(Part):
    """The mount of a volume in Triton's container (VolumeMount of core/v1)."""

    model_config = ConfigDict(extra="allow", json_schema_extra=with_fields_of("core.v1.VolumeMount"))

    name: Annotated[
        str,
        Field(min_length=1, max_length=63),
        _no_own_volume("name one of pod.volumes"),
    ]
    """Name of one of pod.volumes."""
    mount_path: Annotated[
        str,
        Field(min_length=1, max_length=1024),
        Rule(
            "self.startsWith('/') && !self.matches('/[.][.]?(/|$)')",
            message="mountPath must be an absolute path without '.' and '..', such as /data",
        ),
        Rule(
            "!self.matches('^/+(conch|dev/+shm)(/|$)|^/+tmp/*$')",
            message="/conch, /dev/shm and /tmp are Conch's own; mount it elsewhere",
        ),
    ]
    """Absolute path in the container, such as /data."""


class Pod(Part):
    """Settings of the pods: scheduling, environment, volumes and metadata."""

    node_selector: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=64)] = Field(default={})
    """Labels that a node must have for the pods."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=64)] = ()
    """Tolerations of the pods (Toleration of core/v1). Pods on a node that is not ready or not reachable are evicted
    after 60 s, unless a toleration here is for its taint."""
    affinity: Affinity | None = None
    """Affinity of the pods (Affinity of core/v1)."""
    topology_spread_constraints: Annotated[tuple[TopologySpreadConstraint, ...], Field(max_length=16)] | None = None
    """Spread of the pods over nodes and zones (TopologySpreadConstraint of core/v1). Absent: over nodes and zones on a
    best-effort basis. Empty: the defaults of the scheduler."""
    service_account_name: ObjectName | None = None
    """Name of the ServiceAccount of the pods. Its token is not mounted. Absent: default."""
    image_pull_secrets: Annotated[tuple[LocalObjectReference, ...], Field(max_length=16), list_map_key("name")] = ()
    """Secrets with the credentials of the images' registries."""
    env: Annotated[tuple[Variable, ...], Field(max_length=256), list_map_key("name")] = ()
    """Environment variables of Triton's container (EnvVar of core/v1)."""
    priority_class_name: ObjectName | None = None
    """Name of the PriorityClass of the pods."""
    runtime_class_name: ObjectName | None = None
    """Name of the RuntimeClass of the pods, such as nvidia."""
    scheduler_name: Annotated[str | None, Field(min_length=1, max_length=253)] = None
    """Name of the scheduler of the pods. Absent: the cluster's default scheduler."""
    volumes: Annotated[tuple[Volume, ...], Field(max_length=64), list_map_key("name")] = ()
    """Additional volumes of the pods (Volume of core/v1)."""
    volume_mounts: Annotated[tuple[VolumeMount, ...], Field(max_length=64), list_map_key("mountPath")] = ()
    """Mounts of these volumes in Triton's container (VolumeMount of core/v1)."""
    labels: Labels = Field(default={})
    """Additional labels of the pods."""
    annotations: Annotations = Field(default={})
    """Additional annotations of the pods."""
    agent_resources: Resources | None = None
    """Resources of the agent's container, and of the pods of warm-up and parity Jobs. Absent: requests of 50m CPU and
    128Mi, limits of 2 CPU and 1Gi."""
    termination_grace_period_seconds: Grace | None = None
    """Maximum seconds from the start of a pod's termination to its end. Absent: longestRequest plus
    15 s."""
