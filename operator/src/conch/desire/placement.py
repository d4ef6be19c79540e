"""Where the pods of a revision go, and how long they wait for a node that is lost, unless the user says.

Kubernetes has defaults for both, made for pods that start in seconds from small images. What a scheduler gives for
an image that a node has already (ImageLocality: up to 100 points, from 1 GB a container on) is more than what its own
spreading takes for a replica that is there (68 points with two nodes), so the replicas of a large server image
gather where the first one is. A constraint of the pod's own with maxSkew 1 takes 200.
"""

from typing import Any, Final

from conch.api import InferenceService
from conch.api.meta import Manifest, selector

# What Kubernetes puts on a node that is silent or says that it is not well.
LOST: Final = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
# Seconds from that taint to the eviction; Kubernetes' own default is 300. Nobody sends to such a pod any more, so
# waiting only serves those that come back by themselves. To wait as long as another pod takes to start is never
# more than twice the time that one who knows the future needs; a minute is what a model of some GB takes.
LOST_SECONDS: Final = 60
_NODE: Final = "kubernetes.io/hostname"
_ZONE: Final = "topology.kubernetes.io/zone"


def placement(service: InferenceService, revision: str) -> Manifest:
    """Return the pod's spread, affinity and tolerations. A spread that the user gives, if only [], is the whole one."""
    said = service.spec.predictor.pod
    affinity = said.affinity or {}
    mine = selector(service, revision)  # two revisions of a rollout spread each by itself
    if said.topology_spread_constraints is None:
        spread: list[Any] = [_over_nodes(mine)]
        affinity = {"podAntiAffinity": _over_zones(mine), **affinity}
    else:
        spread = list(said.topology_spread_constraints)
    fields = {
        "topologySpreadConstraints": spread,
        "affinity": affinity,
        "tolerations": [*said.tolerations, *_patience(said.tolerations)],
    }
    return {name: value for name, value in fields.items() if value}


def _over_nodes(labels: dict[str, str]) -> Manifest:
    return {
        "maxSkew": 1,
        "topologyKey": _NODE,
        "whenUnsatisfiable": "ScheduleAnyway",  # on one node they run side by side
        "labelSelector": {"matchLabels": labels},
    }


def _over_zones(labels: dict[str, str]) -> Manifest:
    """Return the wish for another zone.

    It is no second constraint: constraints of a pod count only on nodes that have the labels of all of them, so
    in a cluster without zones the one over nodes would be void too.
    """
    term = {"topologyKey": _ZONE, "labelSelector": {"matchLabels": labels}}
    return {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}


def _patience(said: tuple[dict[str, Any], ...]) -> list[Manifest]:
    """Return how long a lost node is borne, where the user does not say."""
    return [
        {"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": LOST_SECONDS}
        for taint in LOST
        if not any(_bears(toleration, taint) for toleration in said)
    ]


def _bears(toleration: dict[str, Any], taint: str) -> bool:
    """Whether a toleration speaks of a taint that evicts; without a key, or an effect, it speaks of all."""
    return toleration.get("key", "") in {"", taint} and toleration.get("effect", "") in {"", "NoExecute"}
