"""What a user may say about the pods."""

from typing import Annotated, Final

from pydantic import ConfigDict, Field

from conch.api._base import UNREADABLE, Duration, ObjectName, Part, keyed_by
from conch.api.cel import Rule, rules
from conch.api.kubernetes import Affinity, Toleration, TopologySpreadConstraint, with_fields_of
from conch.api.quantity import Quantity, cel_is_quantity

# Volumes that the operator adds to a pod begin so: a user's volume can then never collide with them.
OWN_VOLUME_PREFIX: Final = "conch-"

# Longer than the drain (conch.triton.DRAIN_SECONDS), which Kubernetes refuses to exceed the grace period.
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


# What a pod that goes needs besides its requests (conch.triton: DRAIN_SECONDS and END_SECONDS).
END_SECONDS: Final = 15

LongestRequest = Annotated[
    Duration,
    Rule(
        f"{UNREADABLE} || (duration(self) >= duration('1s') && duration(self) <= duration('12h'))",
        message="longestRequest is between 1s and 12h, such as 2m",
    ),
]

Grace = Annotated[
    int,
    Field(le=86400),
    Rule(
        f"self >= {LEAST_GRACE_SECONDS}",
        message=f"terminationGracePeriodSeconds must be at least {LEAST_GRACE_SECONDS}: a pod that goes first waits"
        " until nobody sends to it any more, then finishes its requests; raise or remove it",
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
    """The most it may use, by resource: cpu, memory, nvidia.com/gpu, ..."""
    requests: Amounts = Field(default={})
    """What the scheduler keeps for it. A resource that only has a limit requests its limit."""

    @property
    def asks_for_cpu(self) -> bool:
        """Whether the node keeps CPU for it: else nobody can tell which share of it is used."""
        return "cpu" in {*self.requests, *self.limits}

    @property
    def has_gpus(self) -> bool:
        """Whether a device of the node is the container's own, such as nvidia.com/gpu."""
        return any("/" in name for name in self.limits)


class Named(Part):
    """A reference to an object of the service's namespace."""

    name: ObjectName
    """Its name."""


class Variable(Part):
    """An environment variable (EnvVar of core/v1)."""

    model_config = ConfigDict(extra="allow", json_schema_extra=with_fields_of("core.v1.EnvVar"))

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Its name."""


def _no_own_volume(remedy: str) -> Rule:
    """Return the rule that a name is not that of a volume which Conch adds."""
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
    """Its name."""


class VolumeMount(Part):
    """Where a volume is seen (VolumeMount of core/v1)."""

    model_config = ConfigDict(extra="allow", json_schema_extra=with_fields_of("core.v1.VolumeMount"))

    name: Annotated[
        str,
        Field(min_length=1, max_length=63),
        _no_own_volume("name one of pod.volumes"),
    ]
    """The volume's name."""
    mount_path: Annotated[
        str,
        Field(min_length=1, max_length=1024),
        Rule(
            "self.startsWith('/') && !self.matches('/[.][.]?(/|$)')",
            message="mountPath is an absolute path without '.' and '..', such as /data",
        ),
        Rule(
            "!self.matches('^/+(conch|dev/+shm)(/|$)|^/+tmp/*$')",
            message="/conch, /dev/shm and /tmp are Conch's own; mount it elsewhere",
        ),
    ]
    """The path in the container."""


class Pod(Part):
    """What goes into the pods besides the model."""

    node_selector: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=64)] = Field(default={})
    """Labels that a node must have."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=64)] = ()
    """Taints that the pods tolerate (Toleration of core/v1). A lost node: 60 s, if nothing here speaks of it."""
    affinity: Affinity | None = None
    """Where the pods are drawn to or kept from (Affinity of core/v1)."""
    topology_spread_constraints: Annotated[tuple[TopologySpreadConstraint, ...], Field(max_length=16)] | None = None
    """How the pods spread over nodes and zones (TopologySpreadConstraint of core/v1). Absent: apart, if possible.
    Empty: as the scheduler does by itself."""
    service_account_name: ObjectName | None = None
    """The service account of the pods; its token is not mounted."""
    image_pull_secrets: Annotated[tuple[Named, ...], Field(max_length=16), keyed_by("name")] = ()
    """Secrets for the registries of the pods' images."""
    env: Annotated[tuple[Variable, ...], Field(max_length=256), keyed_by("name")] = ()
    """Environment of Triton's container (EnvVar of core/v1)."""
    priority_class_name: ObjectName | None = None
    """The priority class of the pods."""
    runtime_class_name: ObjectName | None = None
    """The runtime class of the pods, such as nvidia."""
    scheduler_name: Annotated[str | None, Field(min_length=1, max_length=253)] = None
    """The scheduler that places the pods."""
    volumes: Annotated[tuple[Volume, ...], Field(max_length=64), keyed_by("name")] = ()
    """More volumes (Volume of core/v1)."""
    volume_mounts: Annotated[tuple[VolumeMount, ...], Field(max_length=64), keyed_by("mountPath")] = ()
    """Where Triton's container sees them (VolumeMount of core/v1)."""
    labels: Labels = Field(default={})
    """More labels on the pods."""
    annotations: Annotations = Field(default={})
    """More annotations on the pods."""
    agent_resources: Resources | None = None
    """Resources of the agent's container, and of the pods of warm-up and parity Jobs. Absent: requests of 50m CPU and
    128Mi, limits of 2 CPU and 1Gi."""
    termination_grace_period_seconds: Grace | None = None
    """Seconds that a pod may take to finish its requests. Absent: the operator's default."""
