"""The GPU budget: how many more pods of a kind fit, and the count that a user can check.

Only extended resources are counted, in whole pods on a node, as the scheduler does it. What a node has is its
allocatable; allocated is what the pods bound to it request. (The shape, worked examples beside pure arithmetic, is
that of argo-rollouts' utils/replicaset/canary.go.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from conch.api import InferenceService, Pod
from conch.decide.admission.placement import is_eligible
from conch.observe.capacity import Amounts, Capacity, Node, Owner, Quota, Scope, requested_by_container

Owners = frozenset[Owner]


@dataclass(frozen=True)
class Need:
    """The pods that a candidate needs beside those of the stable revision."""

    revision: str
    pods: int
    each: Amounts  # by extended resource; never empty
    pod: Pod  # on which nodes they may run

    def __str__(self) -> str:
        """Return it for a sentence: `2 more pods with 1 nvidia.com/gpu each`."""
        return f"{_count(self.pods, 'more pod')} with {words(self.each)}{' each' if self.pods > 1 else ''}"


def resources_per_pod(service: InferenceService) -> Amounts:
    """Return the extended resources that a pod of the service requests; most request none."""
    return requested_by_container(service.spec.predictor.resources.to_wire())


@dataclass(frozen=True)
class Budget:
    """How many pods of a need fit, and why no more."""

    fits: int
    count: str  # such as `0 fit: 2 of 2 nvidia.com/gpu on eligible nodes are allocated`
    remedy: str  # how to get enough; empty where there is enough


def budget(need: Need, capacity: Capacity, gone: Owners = frozenset()) -> Budget:
    """Return how many pods of a need fit, by nodes and by quotas: the lower number counts.

    Args:
        need: the pods.
        capacity: the nodes and quotas.
        gone: owners whose pods are counted as gone.

    >>> gpu = lambda count: {"nvidia.com/gpu": count}
    >>> stable = Owner("demo", "magika-a")
    >>> node = Node("n1", allocatable=gpu(2), allocated={stable: gpu(2)})
    >>> two = Need("magika-b", 2, gpu(1), Pod())
    >>> print(budget(two, Capacity((node,))).count)
    0 fit: 2 of 2 nvidia.com/gpu on eligible nodes are allocated
    >>> budget(two, Capacity((node,))).remedy
    'free 2'
    >>> budget(two, Capacity((node,)), gone=frozenset({stable})).fits
    2

    Free GPUs of different nodes do not add up to a pod:

    >>> nodes = [Node(name, allocatable=gpu(2), allocated={stable: gpu(1)}) for name in ("n1", "n2")]
    >>> one = Need("magika-b", 1, gpu(2), Pod())
    >>> print(budget(one, Capacity(tuple(nodes))).count)
    0 fit: 2 of 4 nvidia.com/gpu on eligible nodes are allocated
    >>> budget(one, Capacity(tuple(nodes))).remedy
    'free 2 nvidia.com/gpu on one node'
    """
    by_nodes = _by_nodes(need, capacity, gone)
    quotas = [quota for quota in capacity.quotas if _counts(quota, need.pod)]
    # What a quota counts as used is allocated on nodes; pods of a revision that are on no node yet are few.
    allocated = {
        resource: [node.allocated.get(who, {}).get(resource, 0) for node in capacity.nodes for who in gone]
        for resource in need.each
    }
    found = (_by_quota(need, quota, resource, sum(allocated[resource])) for quota in quotas for resource in need.each)
    return min((by_nodes, *(one for one in found if one is not None)), key=lambda one: one.fits)


def pods_on(node: Node, each: Amounts, gone: Owners = frozenset()) -> int:
    """Return how many more such pods fit on a node: whole ones.

    >>> allocated = {Owner("demo", "other-a"): {"nvidia.com/gpu": 3}}
    >>> node = Node("n1", allocatable={"nvidia.com/gpu": 8, "rdma/hca": 2}, allocated=allocated)
    >>> pods_on(node, {"nvidia.com/gpu": 2})
    2
    >>> pods_on(node, {"nvidia.com/gpu": 1, "rdma/hca": 1})
    2
    >>> pods_on(node, {"amd.com/gpu": 1})
    0
    """
    return max(0, min((_free(node, resource, gone) // amount for resource, amount in each.items()), default=0))


def words(amounts: Amounts) -> str:
    """Return amounts for a sentence.

    >>> words({"nvidia.com/gpu": 2, "rdma/hca": 1})
    '2 nvidia.com/gpu and 1 rdma/hca'
    """
    return " and ".join(f"{amount} {resource}" for resource, amount in amounts.items())


def _free(node: Node, resource: str, gone: Owners) -> int:
    return node.allocatable.get(resource, 0) - node.used(resource, gone)


def _by_nodes(need: Need, capacity: Capacity, gone: Owners) -> Budget:
    """Return how many pods the nodes take, less what is reserved for other pods of the service."""
    every = [node for node in capacity.nodes if all(node.allocatable.get(resource) for resource in need.each)]
    if not every:
        return Budget(0, f"0 fit: no node has {' and '.join(need.each)}", "add such a node")
    eligible = [node for node in every if is_eligible(node, need.pod, need.each)]
    if not eligible:
        count = f"0 fit: none of the {len(every)} nodes with {' and '.join(need.each)} is eligible"
        remedy = "see that such a node is Ready, not cordoned, and meets predictor.pod (nodeSelector, affinity,"
        return Budget(0, count, f"{remedy} tolerations)")
    reserved = {r: _reserved(capacity, r, gone) for r in need.each}
    others = max(-(-reserved[resource] // amount) for resource, amount in need.each.items())
    fits = max(0, sum(pods_on(node, need.each, gone) for node in eligible) - others)
    sums = (_sum(eligible, resource, gone) for resource in need.each)
    count = f"{_fit(fits)}: {' and '.join(sums)} on eligible nodes are allocated"
    if others:
        amounts = {resource: amount for resource, amount in reserved.items() if amount}
        count += f", and {words(amounts)} reserved for pods that start"
    return Budget(fits, count, _remedy(need, need.pods - fits))


def _reserved(capacity: Capacity, resource: str, gone: Owners) -> int:
    return sum(amounts.get(resource, 0) for owner, amounts in capacity.reserved.items() if owner not in gone)


def _sum(nodes: Sequence[Node], resource: str, gone: Owners) -> str:
    used = sum(node.used(resource, gone) for node in nodes)
    return f"{used} of {sum(node.allocatable[resource] for node in nodes)} {resource}"


def _remedy(need: Need, lacking: int) -> str:
    """Return what to free for the pods that do not fit."""
    if lacking <= 0:
        return ""
    if list(need.each.values()) == [1]:
        return f"free {lacking}"
    where = "on one node" if lacking == 1 else f"on one node for each of {lacking} pods"
    return f"free {words(need.each)} {where}"


def _by_quota(need: Need, quota: Quota, resource: str, freed: int) -> Budget | None:
    """Return what a quota allows; None: it has no limit of the resource."""
    if resource not in quota.hard:
        return None
    hard, used = quota.hard[resource], max(0, quota.used.get(resource, 0) - freed)
    fits = max(0, hard - used) // need.each[resource]
    count = f"{_fit(fits)}: {used} of {hard} requests.{resource} of ResourceQuota {quota.name} are used"
    lacking = (need.pods - fits) * need.each[resource] - max(0, hard - used) % need.each[resource]
    remedy = f"free {lacking} or raise the quota" if fits < need.pods else ""
    return Budget(fits, count, remedy)


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


def _fit(number: int) -> str:
    return f"{number} {'fits' if number == 1 else 'fit'}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
