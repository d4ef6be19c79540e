"""Defaults for the placement of a revision's pods, and for their eviction from a lost node.

Kubernetes' own defaults are for small images that start in seconds. The scheduler gives a node with the image up to 100
points (ImageLocality, from 1 GB for each container), and its default spread takes 68 points for a replica (with two
nodes), so that all replicas of a large image get the node of the first one. A constraint with maxSkew 1 takes 200.
"""

from typing import Any, Final

from conch.api import InferenceService
from conch.api.meta import Manifest, workload_selector

# Taints that Kubernetes sets on a node that does not respond or reports that it is not ready.
LOST_NODE_TAINTS: Final = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
# Seconds from that taint to the eviction; Kubernetes' default is 300. The pod gets no requests meanwhile, so a wait
# helps only if the node returns. A wait as long as the start of another pod costs at most twice the optimum; a model of
# some GB starts within a minute.
LOST_SECONDS: Final = 60
_NODE: Final = "kubernetes.io/hostname"
_ZONE: Final = "topology.kubernetes.io/zone"


def build_placement(service: InferenceService, workload: str) -> Manifest:
    """Return spread, affinity and tolerations of a pod. A spread in the spec, also an empty one, is the only one."""
    pod = service.spec.predictor.pod
    affinity = pod.affinity or {}
    own = workload_selector(service, workload)  # each workload of a rollout spreads on its own
    if pod.topology_spread_constraints is None:
        spread: list[Any] = [_spread_over_nodes(own)]
        affinity = {"podAntiAffinity": _spread_over_zones(own), **affinity}
    else:
        spread = list(pod.topology_spread_constraints)
    fields = {
        "topologySpreadConstraints": spread,
        "affinity": affinity,
        "tolerations": [*pod.tolerations, *_build_tolerations(pod.tolerations)],
    }
    return {name: value for name, value in fields.items() if value}


def _spread_over_nodes(labels: dict[str, str]) -> Manifest:
    return {
        "maxSkew": 1,
        "topologyKey": _NODE,
        "whenUnsatisfiable": "ScheduleAnyway",  # best effort, for clusters with one node
        "labelSelector": {"matchLabels": labels},
    }


def _spread_over_zones(labels: dict[str, str]) -> Manifest:
    """Return the affinity that spreads pods over zones on a best-effort basis.

    It is not a second constraint: the scheduler applies constraints only to nodes with the labels of all of them, so in
    a cluster without zones the constraint over nodes would not count either.
    """
    term = {"topologyKey": _ZONE, "labelSelector": {"matchLabels": labels}}
    return {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}


def _build_tolerations(own: tuple[dict[str, Any], ...]) -> list[Manifest]:
    """Return tolerations of a lost node for LOST_SECONDS, without those for which the spec has its own."""
    return [
        {"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": LOST_SECONDS}
        for taint in LOST_NODE_TAINTS
        if not any(_tolerates(toleration, taint) for toleration in own)
    ]


def _tolerates(toleration: dict[str, Any], taint: str) -> bool:
    """Whether a toleration is for a taint with the effect NoExecute. Without a key, or an effect, it is for all."""
    return toleration.get("key", "") in {"", taint} and toleration.get("effect", "") in {"", "NoExecute"}
