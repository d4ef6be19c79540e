"""What GPUs the cluster has, who holds them, and what the namespace may ask for. Values, and how manifests are read.

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
_QUOTED: Final = "requests."  # how a ResourceQuota spells that it counts requests of a resource


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


def asked(resources: Body | None) -> dict[str, int]:
    """Return what a container asks of the extended resources: its requests, and where it has none its limits.

    >>> asked({"limits": {"nvidia.com/gpu": 1}})
    {'nvidia.com/gpu': 1}
    """
    said = resources or {}
    return extended({**(said.get("limits") or {}), **(said.get("requests") or {})})


def asked_by_pod(spec: Body) -> dict[str, int]:
    """Return what a pod asks: all its containers and sidecars, or an init container that asks for more at its time.

    >>> gpus = lambda count, **more: {"resources": {"limits": {"nvidia.com/gpu": count}}, **more}
    >>> asked_by_pod({"containers": [gpus(1), gpus(1)], "initContainers": [gpus(1, restartPolicy="Always"), gpus(4)]})
    {'nvidia.com/gpu': 5}
    >>> asked_by_pod({"containers": [gpus(1), gpus(1)], "initContainers": [gpus(1, restartPolicy="Always"), gpus(1)]})
    {'nvidia.com/gpu': 3}
    """
    sidecars: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for container in spec.get("initContainers") or ():
        own = Counter(asked(container.get("resources")))
        if container.get("restartPolicy") == "Always":
            sidecars += own
            own = Counter()
        most |= sidecars + own
    running = sidecars + Counter()
    for container in spec.get("containers") or ():
        running += Counter(asked(container.get("resources")))
    return dict(most | running)


class Holder(NamedTuple):
    """Whose a pod is: a revision of a service. All others are of nobody."""

    namespace: str
    revision: str


NOBODY: Final = Holder("", "")


@dataclass(frozen=True)
class Claim:
    """What one pod holds of its node."""

    node: str
    holder: Holder
    amounts: Amounts

    @classmethod
    def of(cls, pod: Body) -> Self | None:
        """Read a pod; None: it holds nothing, for it is on no node, is over, or asks for no extended resource."""
        meta, spec = pod["metadata"], pod["spec"]
        if not spec.get("nodeName") or (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}:
            return None
        amounts = asked_by_pod(spec)
        revision = (meta.get("labels") or {}).get(names.LABEL_REVISION)
        holder = Holder(meta["namespace"], revision) if revision else NOBODY
        return cls(spec["nodeName"], holder, amounts) if amounts else None


@dataclass(frozen=True)
class Taint:
    """What keeps pods from a node that do not tolerate it."""

    key: str
    value: str
    effect: str


@dataclass(frozen=True)
class Node:
    """One node: what it has, and who holds it."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    open: bool = True  # Ready, and not cordoned
    allocatable: Amounts = field(default_factory=dict)
    held: Mapping[Holder, Amounts] = field(default_factory=dict)

    @classmethod
    def parse(cls, body: Body, claims: Iterable[Claim] = ()) -> Self:
        """Read a node, with the claims on it."""
        spec, status = body.get("spec") or {}, body.get("status") or {}
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())
        held: dict[Holder, Counter[str]] = {}
        for claim in claims:
            held.setdefault(claim.holder, Counter()).update(claim.amounts)
        return cls(
            name=body["metadata"]["name"],
            labels=dict(body["metadata"].get("labels") or {}),
            taints=tuple(Taint(t["key"], t.get("value", ""), t["effect"]) for t in spec.get("taints") or ()),
            open=ready and not spec.get("unschedulable"),
            allocatable=extended(status.get("allocatable")),
            held=held,
        )

    def used(self, resource: str, gone: frozenset[Holder] = frozenset()) -> int:
        """How much of a resource is held, leaving some holders out."""
        return sum(amounts.get(resource, 0) for who, amounts in self.held.items() if who not in gone)


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
    """Return what a quota says of extended resources; of a limit, a zero counts too.

    >>> _quoted({"requests.nvidia.com/gpu": "0", "requests.cpu": "4", "pods": "9"})
    {'nvidia.com/gpu': 0}
    """
    named = {key.removeprefix(_QUOTED): value for key, value in (amounts or {}).items() if key.startswith(_QUOTED)}
    return {name: int(parse_quantity(value) or 0) for name, value in named.items() if is_extended(name)}


@dataclass(frozen=True)
class Capacity:
    """What the cluster's nodes and the namespace's quotas leave."""

    nodes: tuple[Node, ...] = ()
    quotas: tuple[Quota, ...] = ()
    unknown: str = ""  # why nobody can tell; empty: it is known
    promised: Mapping[Holder, Amounts] = field(default_factory=dict)  # to pods that are on no node yet, as far as known

    def promising(self, wanted: Mapping[Holder, Amounts]) -> Self:
        """The same, with what holders shall have: what they do not hold yet is promised to them."""
        promised = {}
        for who, amounts in wanted.items():
            held = {r: sum(node.held.get(who, {}).get(r, 0) for node in self.nodes) for r in amounts}
            promised[who] = {r: amount - held[r] for r, amount in amounts.items() if amount > held[r]}
        return replace(self, promised={who: amounts for who, amounts in promised.items() if amounts})

    @classmethod
    def of(cls, nodes: Sequence[Body], claims: Iterable[Claim], quotas: Iterable[Body]) -> Self:
        """Read nodes and quotas, with the claims of pods on the nodes."""
        on: dict[str, list[Claim]] = {}
        for claim in claims:
            on.setdefault(claim.node, []).append(claim)
        read = (Quota.parse(body) for body in quotas)
        return cls(
            nodes=tuple(Node.parse(body, on.get(body["metadata"]["name"], ())) for body in nodes),
            quotas=tuple(quota for quota in read if quota.hard),
        )
