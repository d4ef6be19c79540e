"""The GPUs of the cluster, their allocation to pods, and the quotas of the namespace, as they are read from objects.

A GPU is any extended resource, as Kubernetes calls what a device plugin adds to a node: a resource whose name has a
domain of its own, such as nvidia.com/gpu, nvidia.com/mig-1g.5gb or amd.com/gpu.
Sources: kubernetes.io, "Resource Management for Pods and Containers", "Resource Quotas" and "Sidecar Containers"
(how the requests of init containers count).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, Self

from conch.api.quantity import parse_quantity
from conch_contract import names

Body = Mapping[str, Any]
Amounts = Mapping[str, int]  # by extended resource; what is 0 may be absent
_QUOTED: Final = "requests."  # the prefix of a ResourceQuota's key for requests of a resource


def is_extended(resource: str) -> bool:
    """Whether a resource is an extended one (apimachinery's rule: IsExtendedResourceName).

    >>> [is_extended(name) for name in ("nvidia.com/gpu", "cpu", "hugepages-2Mi", "kubernetes.io/batch-cpu")]
    [True, False, False, False]
    """
    return "/" in resource and "kubernetes.io/" not in resource and not resource.startswith(_QUOTED)


def extended(amounts: Body | None) -> dict[str, int]:
    """Return the extended resources of a list of resources. They come in whole numbers.

    >>> extended({"cpu": "500m", "nvidia.com/gpu": "2", "amd.com/gpu": 0})
    {'nvidia.com/gpu': 2}
    """
    read = {name: int(parse_quantity(value) or 0) for name, value in (amounts or {}).items() if is_extended(name)}
    return {name: amount for name, amount in read.items() if amount}


def requested_by_container(resources: Body | None) -> dict[str, int]:
    """Return the extended resources that a container requests; its limits where it has no requests.

    >>> requested_by_container({"limits": {"nvidia.com/gpu": 1}})
    {'nvidia.com/gpu': 1}
    """
    found = resources or {}
    return extended({**(found.get("limits") or {}), **(found.get("requests") or {})})


def requested_by_pod(spec: Body) -> dict[str, int]:
    """Return what a pod requests: its containers and sidecars, or an init container that requests more.

    >>> gpus = lambda count, **more: {"resources": {"limits": {"nvidia.com/gpu": count}}, **more}
    >>> two, sidecar = [gpus(1), gpus(1)], gpus(1, restartPolicy="Always")
    >>> requested_by_pod({"containers": two, "initContainers": [sidecar, gpus(4)]})
    {'nvidia.com/gpu': 5}
    >>> requested_by_pod({"containers": two, "initContainers": [sidecar, gpus(1)]})
    {'nvidia.com/gpu': 3}
    """
    sidecars: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for container in spec.get("initContainers") or ():
        own = Counter(requested_by_container(container.get("resources")))
        if container.get("restartPolicy") == "Always":
            sidecars += own
            own = Counter()
        most |= sidecars + own
    running = sidecars + Counter()
    for container in spec.get("containers") or ():
        running += Counter(requested_by_container(container.get("resources")))
    return dict(most | running)


class Owner(NamedTuple):
    """The owner of a pod: a workload of a service. All other pods have NO_OWNER."""

    namespace: str
    workload: str


NO_OWNER: Final = Owner("", "")


@dataclass(frozen=True)
class Allocation:
    """The extended resources of a node that one pod has."""

    node: str
    owner: Owner
    amounts: Amounts

    @classmethod
    def of(cls, pod: Body) -> Self | None:
        """Read a pod; None: it is on no node, has ended, or requests no extended resource."""
        meta, spec = pod["metadata"], pod["spec"]
        if not spec.get("nodeName") or (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}:
            return None
        amounts = requested_by_pod(spec)
        labels = meta.get("labels") or {}
        workload = labels.get(names.LABEL_WORKLOAD) or labels.get(names.LABEL_REVISION)
        owner = Owner(meta["namespace"], workload) if workload else NO_OWNER
        return cls(spec["nodeName"], owner, amounts) if amounts else None


@dataclass(frozen=True)
class Taint:
    """A taint of a node: pods that do not tolerate it are not placed there."""

    key: str
    value: str
    effect: str


@dataclass(frozen=True)
class Node:
    """One node: its allocatable resources, and their allocation."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    open: bool = True  # Ready, and not cordoned
    allocatable: Amounts = field(default_factory=dict)
    allocated: Mapping[Owner, Amounts] = field(default_factory=dict)

    @classmethod
    def parse(cls, body: Body, allocations: Iterable[Allocation] = ()) -> Self:
        """Read a node, with the allocations on it."""
        spec, status = body.get("spec") or {}, body.get("status") or {}
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())
        allocated: dict[Owner, Counter[str]] = {}
        for allocation in allocations:
            allocated.setdefault(allocation.owner, Counter()).update(allocation.amounts)
        return cls(
            name=body["metadata"]["name"],
            labels=dict(body["metadata"].get("labels") or {}),
            taints=tuple(Taint(t["key"], t.get("value", ""), t["effect"]) for t in spec.get("taints") or ()),
            open=ready and not spec.get("unschedulable"),
            allocatable=extended(status.get("allocatable")),
            allocated=allocated,
        )

    def used(self, resource: str, gone: frozenset[Owner] = frozenset()) -> int:
        """Return how much of a resource is allocated, without that of some owners."""
        return sum(amounts.get(resource, 0) for who, amounts in self.allocated.items() if who not in gone)


@dataclass(frozen=True)
class Scope:
    """Which pods a ResourceQuota counts (ScopedResourceSelectorRequirement of core/v1)."""

    name: str
    operator: str = "Exists"
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Quota:
    """A ResourceQuota of the namespace, as far as it counts extended resources."""

    name: str
    hard: Amounts
    used: Amounts
    scopes: tuple[Scope, ...] = ()

    @classmethod
    def parse(cls, body: Body) -> Self:
        """Read a ResourceQuota."""
        spec, status = body.get("spec") or {}, body.get("status") or {}
        selected = (spec.get("scopeSelector") or {}).get("matchExpressions") or ()
        return cls(
            name=body["metadata"]["name"],
            hard=_quoted(spec.get("hard")),
            used=_quoted(status.get("used")),
            scopes=(
                *(Scope(name) for name in spec.get("scopes") or ()),
                *(Scope(s["scopeName"], s["operator"], tuple(s.get("values") or ())) for s in selected),
            ),
        )


def _quoted(amounts: Body | None) -> dict[str, int]:
    """Return a quota's extended resources; a zero counts too.

    >>> _quoted({"requests.nvidia.com/gpu": "0", "requests.cpu": "4", "pods": "9"})
    {'nvidia.com/gpu': 0}
    """
    named = {key.removeprefix(_QUOTED): value for key, value in (amounts or {}).items() if key.startswith(_QUOTED)}
    return {name: int(parse_quantity(value) or 0) for name, value in named.items() if is_extended(name)}


@dataclass(frozen=True)
class Capacity:
    """The nodes of the cluster, and the quotas of the namespace."""

    nodes: tuple[Node, ...] = ()
    quotas: tuple[Quota, ...] = ()
    unknown: str = ""  # why it is not known; empty: it is known
    reserved: Mapping[Owner, Amounts] = field(default_factory=dict)  # to pods that are on no node yet, as far as known

    def reserving(self, desired: Mapping[Owner, Amounts]) -> Self:
        """Return the same with resources reserved for owners: the part that they do not have yet."""
        reserved = {}
        for who, amounts in desired.items():
            allocated = {r: sum(node.allocated.get(who, {}).get(r, 0) for node in self.nodes) for r in amounts}
            reserved[who] = {r: amount - allocated[r] for r, amount in amounts.items() if amount > allocated[r]}
        return replace(self, reserved={who: amounts for who, amounts in reserved.items() if amounts})

    @classmethod
    def of(cls, nodes: Sequence[Body], allocations: Iterable[Allocation], quotas: Iterable[Body]) -> Self:
        """Read nodes and quotas, with the allocations of pods on the nodes."""
        on: dict[str, list[Allocation]] = {}
        for allocation in allocations:
            on.setdefault(allocation.node, []).append(allocation)
        read = (Quota.parse(body) for body in quotas)
        return cls(
            nodes=tuple(Node.parse(body, on.get(body["metadata"]["name"], ())) for body in nodes),
            quotas=tuple(quota for quota in read if quota.hard),
        )
