"""The kinds that a service owns, one row each. Write order, watches, rights, cached fields and messages follow from it.

To add a kind: a `Kind` in `kinds.py`, a row here, and a builder in `conch.desire`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from conch.api.kinds import (
    AUTOSCALER,
    BACKEND_TRAFFIC_POLICY,
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    ENDPOINT_SLICE,
    GATEWAYS,
    HTTP_ROUTE,
    INFERENCE_SERVICE,
    JOB,
    POD,
    REPLICA_SET,
    SCALED_OBJECT,
    SERVICE,
    Kind,
)
from conch.api.reasons import Reason


class NotInstalled(NamedTuple):
    """The condition of a service whose cluster lacks the API of a kind."""

    reason: str
    message: str


@dataclass(frozen=True)
class ChildKind:
    """A kind that a service owns.

    Attributes:
        kind: the kind.
        step: of the writes, from 0. An object refers to objects of lower steps only; deletions go the other way.
        why: the reason for the operator's rights, as a sentence without its period (the chart's RBAC).
        refers_to: the kinds of objects of the same revision (for a shared kind: of the same service) that an object
            needs; they are written before it and deleted after it.
        conditions: the types of `status.conditions` that the cache keeps. A change of any other part of the status
            starts no reconcile.
        reporters: the list of the status in which each controller has conditions of its own; the cache keeps it.
        not_installed: the condition where the cluster lacks the API; None: every cluster has it.
        is_shared: there is one object for the predictor and all variants together.
        needs_keda: the kind is watched, and the rights are granted, only where KEDA scales the pods.
    """

    kind: Kind
    step: int
    why: str
    refers_to: tuple[Kind, ...] = ()
    conditions: tuple[str, ...] = ()
    reporters: str = ""
    not_installed: NotInstalled | None = None
    is_shared: bool = False
    needs_keda: bool = False


CHILD_KINDS: Final = (
    ChildKind(CONTROLLER_REVISION, step=0, why="the stored state of each revision, from which its pods are applied"),
    ChildKind(CONFIG_MAP, step=0, why="the model manifest that a revision's pods read"),
    ChildKind(SERVICE, step=1, why="the root Service, and one Service for each revision"),
    ChildKind(
        DEPLOYMENT,
        step=1,
        why="the pods of a revision",
        refers_to=(CONTROLLER_REVISION, CONFIG_MAP),
        conditions=("ReplicaFailure",),
    ),
    ChildKind(
        AUTOSCALER,
        step=2,
        why="the number of a revision's pods, if the service scales",
        refers_to=(DEPLOYMENT,),
        conditions=("ScalingActive",),
    ),
    ChildKind(DISRUPTION_BUDGET, step=1, why="the number of pods that a drain may evict at once"),
    ChildKind(
        JOB,
        step=2,
        why="the warm-up of a revision, and the comparison of its answers, where the service requests them",
        refers_to=(CONTROLLER_REVISION, CONFIG_MAP, SERVICE, DEPLOYMENT),
        conditions=("Failed",),
    ),
    ChildKind(
        HTTP_ROUTE,
        step=2,
        why="the route through a gateway, where the service names one; list and watch also find the routes of others"
        " that take its requests",
        reporters="parents",
        not_installed=NotInstalled(
            Reason.GATEWAY_API_MISSING,
            "The cluster has no HTTPRoute API; install the CRDs of the Gateway API (v1) and a gateway, or remove"
            " traffic.gateways and traffic.hostnames.",
        ),
        is_shared=True,
    ),
    ChildKind(
        BACKEND_TRAFFIC_POLICY,
        step=3,
        why="at Gateways of Envoy Gateway: which requests go to the same pod, where the service requires that, and no"
        " request to a pod that is not ready, where it may be without pods",
        refers_to=(HTTP_ROUTE,),
        reporters="ancestors",
        not_installed=NotInstalled(
            Reason.ENVOY_GATEWAY_MISSING,
            "The cluster has no BackendTrafficPolicy API, which traffic.consistentHash needs; install Envoy"
            " Gateway, or remove traffic.consistentHash.",
        ),
        is_shared=True,
    ),
    ChildKind(
        SCALED_OBJECT,
        step=2,
        why="the number of a revision's pods, if KEDA scales it",
        refers_to=(DEPLOYMENT,),
        conditions=("Ready", "HPAActive", "Paused"),
        not_installed=NotInstalled(
            Reason.KEDA_MISSING,
            "The cluster has no ScaledObject API, and Conch was installed with autoscaling.metricsApi keda; install"
            " KEDA 2, or install Conch with another metricsApi.",
        ),
        needs_keda=True,
    ),
)

_BY_KIND: Final[Mapping[Kind, ChildKind]] = {child.kind: child for child in CHILD_KINDS}
CHILDREN: Final = tuple(child.kind for child in CHILD_KINDS if not child.needs_keda)
SHARED: Final = frozenset(child.kind for child in CHILD_KINDS if child.is_shared)
# ReplicaSets and pods belong to a service through its Deployment, and EndpointSlices through its Service; Conch only
# reads them.
WATCHED: Final = (INFERENCE_SERVICE, *CHILDREN, REPLICA_SET, POD, ENDPOINT_SLICE)
# Kinds of APIs that are installed apart from Kubernetes and from Conch, so that a cluster may lack them.
OPTIONAL: Final = frozenset({*GATEWAYS, *(child.kind for child in CHILD_KINDS if child.not_installed is not None)})


def watched_kinds(*, with_keda: bool) -> tuple[Kind, ...]:
    """Return the namespaced kinds that the operator watches."""
    return (*WATCHED, *(child.kind for child in CHILD_KINDS if child.needs_keda and with_keda))


def child_kind(kind: Kind) -> ChildKind:
    """Return the row of a kind.

    Raises:
        KeyError: the kind has no row.
    """
    try:
        return _BY_KIND[kind]
    except KeyError:
        raise KeyError(f"{kind.name} has no row in conch.api.child_kinds") from None
