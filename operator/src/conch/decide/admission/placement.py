"""Which nodes are eligible for a pod: the scheduler's filters that follow from the pod's spec, as pure checks.

Source: kubernetes.io, "Assigning Pods to Nodes" and "Taints and Tolerations". What only the scheduler knows (CPU and
memory, affinity to other pods, spread, volumes, extenders) is left to it: a pod that it rejects stays Pending, and its
status has the reason.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from conch.api import Pod
from conch.observe.capacity import Node, Taint

# Affinity and tolerations are handed on as they are written: the API server rejects invalid ones.
_UNREADABLE: Final = (AttributeError, IndexError, KeyError, TypeError, ValueError)
_REPELS: Final = frozenset({"NoSchedule", "NoExecute"})


def is_eligible(node: Node, pod: Pod, resources: Iterable[str]) -> bool:
    """Whether the scheduler may place such pods, which request `resources`, on a node."""
    return node.open and _has_labels(node, pod) and all(_is_tolerated(pod, taint, resources) for taint in node.taints)


def _has_labels(node: Node, pod: Pod) -> bool:
    """Whether a node has the labels that the pods require."""
    if any(node.labels.get(key) != value for key, value in pod.node_selector.items()):
        return False
    try:
        affinity = (pod.affinity or {}).get("nodeAffinity") or {}
        required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
        return required is None or any(_term(term, node) for term in required["nodeSelectorTerms"])
    except _UNREADABLE:
        return True


def _is_tolerated(pod: Pod, taint: Taint, resources: Iterable[str]) -> bool:
    try:
        return tolerates(pod.tolerations, taint, resources)
    except _UNREADABLE:
        return True


def _term(term: Mapping[str, Any], node: Node) -> bool:
    """Whether a node meets a NodeSelectorTerm; no node meets an empty one."""
    labels, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    return bool(labels or fields) and (
        all(is_met(each, node.labels) for each in labels)
        and all(is_met(each, {"metadata.name": node.name}) for each in fields)
    )


def is_met(requirement: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether labels meet a NodeSelectorRequirement; none meet one that cannot be read.

    >>> zone = lambda operator, *values: {"key": "zone", "operator": operator, "values": list(values)}
    >>> [is_met(zone("In", "a"), {"zone": "a"}), is_met(zone("NotIn", "a"), {}), is_met(zone("Exists"), {"zone": ""})]
    [True, True, True]
    >>> [is_met(zone("In", "a"), {}), is_met(zone("Gt", "3"), {"zone": "4"}), is_met(zone("Lt", "3"), {"zone": "a"})]
    [False, True, False]
    """
    check = _OPERATORS.get(requirement.get("operator", ""))
    return check is not None and check(labels.get(requirement["key"]), requirement.get("values") or ())


_OPERATORS: Final[dict[str, Callable[[str | None, Sequence[str]], bool]]] = {
    "In": lambda value, values: value is not None and value in values,
    "NotIn": lambda value, values: value is None or value not in values,
    "Exists": lambda value, _: value is not None,
    "DoesNotExist": lambda value, _: value is None,
    "Gt": lambda value, values: _is_number(value) and int(value or 0) > int(values[0]),
    "Lt": lambda value, values: _is_number(value) and int(value or 0) < int(values[0]),
}


def _is_number(value: str | None) -> bool:
    return value is not None and value.removeprefix("-").isdecimal()


def tolerates(tolerations: Iterable[Mapping[str, Any]], taint: Taint, resources: Iterable[str]) -> bool:
    """Whether pods with these tolerations may run in spite of a taint.

    A taint named like a resource that they request counts as tolerated: the admission plugin
    ExtendedResourceToleration, where it is on, adds just that toleration, and no pod template shows it.

    >>> gpu = Taint("nvidia.com/gpu", "present", "NoSchedule")
    >>> tolerates([], gpu, ["nvidia.com/gpu"]), tolerates([], gpu, ["amd.com/gpu"])
    (True, False)
    >>> tolerates([{"operator": "Exists"}], gpu, []), tolerates([{"key": gpu.key, "value": "absent"}], gpu, [])
    (True, False)
    """
    if taint.effect not in _REPELS or taint.key in resources:
        return True
    return any(_matches(each, taint) for each in tolerations)


def _matches(toleration: Mapping[str, Any], taint: Taint) -> bool:
    if (toleration.get("effect") or taint.effect) != taint.effect:
        return False
    if toleration.get("operator") == "Exists":
        return (toleration.get("key") or taint.key) == taint.key
    equal = (toleration.get("operator") or "Equal") == "Equal"
    return equal and (toleration.get("key"), toleration.get("value") or "") == (taint.key, taint.value)
