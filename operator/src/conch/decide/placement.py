"""Which nodes a pod may land on: the scheduler's filters that a user can see coming, as pure checks.

Source: kubernetes.io, "Assigning Pods to Nodes" and "Taints and Tolerations". What only the scheduler knows (CPU and
memory, affinity to other pods, spread, volumes, extenders) is left to it: a pod that it refuses stays Pending, and says
so itself.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from conch.api import Pod
from conch.observe.capacity import Node, Taint

# Affinity and tolerations are handed on as they are written: what makes no sense the API server refuses, in its words.
_UNREADABLE: Final = (AttributeError, IndexError, KeyError, TypeError, ValueError)
_REPELS: Final = frozenset({"NoSchedule", "NoExecute"})


def takes(node: Node, pod: Pod, resources: Iterable[str]) -> bool:
    """Whether a node is open to such pods, which ask for `resources`."""
    return node.open and _drawn(node, pod) and all(_welcome(pod, taint, resources) for taint in node.taints)


def _drawn(node: Node, pod: Pod) -> bool:
    """Whether a node has the labels that the pods ask of it."""
    if any(node.labels.get(key) != value for key, value in pod.node_selector.items()):
        return False
    try:
        affinity = (pod.affinity or {}).get("nodeAffinity") or {}
        required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
        return required is None or any(_term(term, node) for term in required["nodeSelectorTerms"])
    except _UNREADABLE:
        return True


def _welcome(pod: Pod, taint: Taint, resources: Iterable[str]) -> bool:
    try:
        return tolerates(pod.tolerations, taint, resources)
    except _UNREADABLE:
        return True


def _term(term: Mapping[str, Any], node: Node) -> bool:
    """Whether a node has all that a NodeSelectorTerm asks; an empty one is met by none."""
    labels, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    return bool(labels or fields) and (
        all(met(each, node.labels) for each in labels)
        and all(met(each, {"metadata.name": node.name}) for each in fields)
    )


def met(requirement: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether labels meet a NodeSelectorRequirement; one that cannot be read is met by none.

    >>> zone = lambda operator, *values: {"key": "zone", "operator": operator, "values": list(values)}
    >>> [met(zone("In", "a"), {"zone": "a"}), met(zone("NotIn", "a"), {}), met(zone("Exists"), {"zone": ""})]
    [True, True, True]
    >>> [met(zone("In", "a"), {}), met(zone("Gt", "3"), {"zone": "4"}), met(zone("Lt", "3"), {"zone": "a"})]
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
    """Whether pods with these tolerations may land in spite of a taint.

    A taint named like a resource that they ask for counts as tolerated: the admission plugin
    ExtendedResourceToleration, where it is on, adds just that toleration, and no pod template shows it.

    >>> gpu = Taint("nvidia.com/gpu", "present", "NoSchedule")
    >>> tolerates([], gpu, ["nvidia.com/gpu"]), tolerates([], gpu, ["amd.com/gpu"])
    (True, False)
    >>> tolerates([{"operator": "Exists"}], gpu, []), tolerates([{"key": gpu.key, "value": "absent"}], gpu, [])
    (True, False)
    """
    if taint.effect not in _REPELS or taint.key in resources:
        return True
    return any(_tolerated(each, taint) for each in tolerations)


def _tolerated(toleration: Mapping[str, Any], taint: Taint) -> bool:
    if (toleration.get("effect") or taint.effect) != taint.effect:
        return False
    if toleration.get("operator") == "Exists":
        return (toleration.get("key") or taint.key) == taint.key
    equal = (toleration.get("operator") or "Equal") == "Equal"
    return equal and (toleration.get("key"), toleration.get("value") or "") == (taint.key, taint.value)
