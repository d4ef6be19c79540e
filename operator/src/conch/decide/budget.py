"""The GPU budget: how many more pods of a kind the cluster takes, and the sum that a person can check.

Only extended resources are counted, in whole pods on a node, as the scheduler does it. What a node has is its
allocatable; what is held is what the pods bound to it request. (The shape, worked examples beside pure arithmetic, is
that of argo-rollouts' utils/replicaset/canary.go.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from conch.api import InferenceService, Pod
from conch.decide.placement import takes
from conch.observe.capacity import Amounts, Capacity, Holder, Node, Quota, Scope, asked

Holders = frozenset[Holder]


@dataclass(frozen=True)
class Need:
    """What a revision asks for beside the one that serves: so many pods, each of so much."""

    revision: str
    pods: int
    each: Amounts  # by extended resource; never empty
    pod: Pod  # where they may land

    def __str__(self) -> str:
        """Say it as it stands in a sentence: `2 more pods of 1 nvidia.com/gpu`."""
        return f"{_count(self.pods, 'more pod')} of {words(self.each)}"


def each_of(service: InferenceService) -> Amounts:
    """Return the extended resources that a pod of the service asks for; most ask for none."""
    return asked(service.spec.predictor.resources.to_wire())


@dataclass(frozen=True)
class Budget:
    """How many pods of a need fit, and why no more."""

    fits: int
    told: str  # the sum, such as `nodes that take them have 2 of 2 in use, so 0 fit`
    remedy: str  # what would make room; empty where there is enough


def budget(need: Need, capacity: Capacity, gone: Holders = frozenset()) -> Budget:
    """Return what of a need fits into what is left, by nodes and by quotas: the tighter of the two counts.

    Args:
        need: the pods.
        capacity: what the cluster has, and who holds it.
        gone: whose pods are counted as gone.

    >>> gpu = lambda count: {"nvidia.com/gpu": count}
    >>> stable = Holder("demo", "magika-a")
    >>> node = Node("n1", allocatable=gpu(2), held={stable: gpu(2)})
    >>> two = Need("magika-b", 2, gpu(1), Pod())
    >>> print(budget(two, Capacity((node,))).told)
    nodes that take them have 2 of 2 nvidia.com/gpu in use, so 0 fit
    >>> budget(two, Capacity((node,))).remedy
    'free 2'
    >>> budget(two, Capacity((node,)), gone=frozenset({stable})).fits
    2

    Free GPUs of different nodes do not add up to a pod:

    >>> nodes = [Node(name, allocatable=gpu(2), held={stable: gpu(1)}) for name in ("n1", "n2")]
    >>> one = Need("magika-b", 1, gpu(2), Pod())
    >>> print(budget(one, Capacity(tuple(nodes))).told)
    nodes that take them have 2 of 4 nvidia.com/gpu in use, so 0 fit
    >>> budget(one, Capacity(tuple(nodes))).remedy
    'free 2 nvidia.com/gpu on one node'
    """
    by_nodes = _by_nodes(need, capacity, gone)
    quotas = [quota for quota in capacity.quotas if _counts(quota, need.pod)]
    # What a quota counts as used, a revision holds on nodes; its pods that no node has taken yet are few.
    held = {
        resource: [node.held.get(who, {}).get(resource, 0) for node in capacity.nodes for who in gone]
        for resource in need.each
    }
    found = (_by_quota(need, quota, resource, sum(held[resource])) for quota in quotas for resource in need.each)
    return min((by_nodes, *(one for one in found if one is not None)), key=lambda one: one.fits)


def pods_on(node: Node, each: Amounts, gone: Holders = frozenset()) -> int:
    """Return how many more such pods a node has room for: whole ones.

    >>> held = {Holder("demo", "other-a"): {"nvidia.com/gpu": 3}}
    >>> node = Node("n1", allocatable={"nvidia.com/gpu": 8, "rdma/hca": 2}, held=held)
    >>> pods_on(node, {"nvidia.com/gpu": 2})
    2
    >>> pods_on(node, {"nvidia.com/gpu": 1, "rdma/hca": 1})
    2
    >>> pods_on(node, {"amd.com/gpu": 1})
    0
    """
    return max(0, min((_free(node, resource, gone) // amount for resource, amount in each.items()), default=0))


def words(amounts: Amounts) -> str:
    """Return amounts as a sentence has them.

    >>> words({"nvidia.com/gpu": 2, "rdma/hca": 1})
    '2 nvidia.com/gpu and 1 rdma/hca'
    """
    return " and ".join(f"{amount} {resource}" for resource, amount in amounts.items())


def _free(node: Node, resource: str, gone: Holders) -> int:
    return node.allocatable.get(resource, 0) - node.used(resource, gone)


def _by_nodes(need: Need, capacity: Capacity, gone: Holders) -> Budget:
    """What the nodes take, less what other pods of the service are about to take."""
    every = [node for node in capacity.nodes if all(node.allocatable.get(resource) for resource in need.each)]
    if not every:
        return Budget(0, f"no node has {' and '.join(need.each)}", "add such a node")
    taking = [node for node in every if takes(node, need.pod, need.each)]
    if not taking:
        told = f"none of the {len(every)} nodes with {' and '.join(need.each)} takes them"
        remedy = "see that such a node is Ready, not cordoned, and meets predictor.pod (nodeSelector, affinity,"
        return Budget(0, told, f"{remedy} tolerations)")
    promised = {r: _promised(capacity, r, gone) for r in need.each}
    others = max(-(-promised[resource] // amount) for resource, amount in need.each.items())
    fits = max(0, sum(pods_on(node, need.each, gone) for node in taking) - others)
    sums = (_sum(taking, resource, gone) for resource in need.each)
    told = f"nodes that take them have {' and '.join(sums)} in use"
    if others:
        told += f" and {words({r: amount for r, amount in promised.items() if amount})} promised to pods that start"
    told += f", so {fits} {'fits' if fits == 1 else 'fit'}"
    return Budget(fits, told, _remedy(need, need.pods - fits))


def _promised(capacity: Capacity, resource: str, gone: Holders) -> int:
    return sum(amounts.get(resource, 0) for who, amounts in capacity.promised.items() if who not in gone)


def _sum(nodes: Sequence[Node], resource: str, gone: Holders) -> str:
    used = sum(node.used(resource, gone) for node in nodes)
    return f"{used} of {sum(node.allocatable[resource] for node in nodes)} {resource}"


def _remedy(need: Need, lacking: int) -> str:
    """What would have to be freed for the pods that do not fit."""
    if lacking <= 0:
        return ""
    if list(need.each.values()) == [1]:
        return f"free {lacking}"
    where = "on one node" if lacking == 1 else f"on one node for each of {lacking} pods"
    return f"free {words(need.each)} {where}"


def _by_quota(need: Need, quota: Quota, resource: str, freed: int) -> Budget | None:
    """What a quota allows; None: it says nothing of the resource."""
    if resource not in quota.hard:
        return None
    hard, used = quota.hard[resource], max(0, quota.used.get(resource, 0) - freed)
    fits = max(0, hard - used) // need.each[resource]
    told = f"ResourceQuota {quota.name} has {used} of {hard} requests.{resource} in use, so {fits}"
    lacking = (need.pods - fits) * need.each[resource] - max(0, hard - used) % need.each[resource]
    remedy = f"free {lacking} or raise the quota" if fits < need.pods else ""
    return Budget(fits, f"{told} {'fits' if fits == 1 else 'fit'}", remedy)


def _counts(quota: Quota, pod: Pod) -> bool:
    """Whether a quota counts such pods: they have no deadline, and request some CPU, so they are not best effort."""
    return all(_in_scope(scope, pod) for scope in quota.scopes)


def _in_scope(scope: Scope, pod: Pod) -> bool:
    if scope.name != "PriorityClass":
        return scope.name in {"NotTerminating", "NotBestEffort"}
    named = pod.priority_class_name
    check: Mapping[str, bool] = {
        "In": named in scope.values,
        "NotIn": named not in scope.values,
        "Exists": named is not None,
        "DoesNotExist": named is None,
    }
    return check.get(scope.operator, False)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
