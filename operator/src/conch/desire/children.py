"""The children of a service. `desire` is the list; each builder below is one kind.

Order: what is referred to stands before what refers to it.
"""

from collections.abc import Mapping, Sequence

from conch.api import InferenceService
from conch.api.kinds import AUTOSCALER, DEPLOYMENT, DISRUPTION_BUDGET, SERVICE
from conch.decide import Decision, Living
from conch.desire.meta import Manifest, child, selector
from conch.desire.revision import Images, config_map, controller_revision, new_revision
from conch.observe import Revision, World
from conch_contract import names


def desire(world: World, decision: Decision, images: Images) -> list[Manifest]:
    """Return all that should exist, in the order in which it may come to be."""
    service = world.service
    manifests: list[Manifest] = []
    for living in decision.living:
        revision = _rendered(world, decision, living, images)
        if revision is None:
            continue  # its record was deleted by hand; its Deployment stays as it is until it is replaced
        manifests += [
            controller_revision(service, revision),
            config_map(service, revision),
            revision_service(service, revision),
            deployment(service, revision, living),
        ]
        if service.spec.predictor.scales:
            manifests.append(autoscaler(service, living))
    return [*manifests, disruption_budget(service), root_service(service, decision.serving)]


def _rendered(world: World, decision: Decision, living: Living, images: Images) -> Revision | None:
    """The stored revision; a new one is rendered now, and one that returns takes the newest number."""
    known = world.revisions.get(living.name)
    if living.name != decision.wanted:
        return known
    if known is None:
        return new_revision(world.service, living.name, decision.number, images)
    return Revision(**{**vars(known), "number": decision.number})


def deployment(service: InferenceService, revision: Revision, living: Living) -> Manifest:
    """Build a revision's Deployment. Where an HPA exists, the replicas are the HPA's."""
    spec: Manifest = {
        "selector": {"matchLabels": selector(service.metadata.name, revision.name)},
        "template": revision.template,
        "revisionHistoryLimit": 0,  # a revision is a Deployment of its own; there is nothing to go back to in it
        "progressDeadlineSeconds": max(1, round(service.spec.rollout.progress_deadline_seconds)),
    }
    if not service.spec.predictor.scales:
        spec["replicas"] = living.floor
    return {**child(service, DEPLOYMENT, revision.name, revision.name), "spec": spec}


def autoscaler(service: InferenceService, living: Living) -> Manifest:
    """Build a revision's HorizontalPodAutoscaler, in the user's own words."""
    predictor = service.spec.predictor
    spec: Manifest = {
        "scaleTargetRef": {
            "apiVersion": DEPLOYMENT.api_version,
            "kind": DEPLOYMENT.name,
            "name": living.name,
        },
        "minReplicas": living.floor,
        "maxReplicas": max(predictor.max_replicas or 1, living.floor),
    }
    said = predictor.autoscaling.to_wire() if predictor.autoscaling else {}
    return {**child(service, AUTOSCALER, living.name, living.name), "spec": {**spec, **said}}


def revision_service(service: InferenceService, revision: Revision) -> Manifest:
    """Build the Service of one revision: where its metrics are, and what routes refer to."""
    return {
        **child(service, SERVICE, revision.name, revision.name),
        "spec": {
            "selector": selector(service.metadata.name, revision.name),
            "ports": _ports({"http": names.HTTP_PORT, "grpc": names.GRPC_PORT, "metrics": names.METRICS_PORT}),
        },
    }


def root_service(service: InferenceService, serving: str) -> Manifest:
    """Build the Service that clients know: it sends requests to the revision that serves."""
    return {
        **child(service, SERVICE, service.metadata.name),
        "spec": {
            "selector": selector(service.metadata.name, serving),
            "ports": _ports({"http": names.HTTP_PORT, "grpc": names.GRPC_PORT}),
        },
    }


def disruption_budget(service: InferenceService) -> Manifest:
    """Build the PodDisruptionBudget: a drain takes a quarter of the pods at a time, and one of one."""
    return {
        **child(service, DISRUPTION_BUDGET, service.metadata.name),
        "spec": {
            "selector": {"matchLabels": selector(service.metadata.name)},
            "maxUnavailable": "25%",  # rounded up, so that a service of one pod does not hold a drain for ever
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


_PROTOCOLS: Mapping[str, str] = {"http": "http", "grpc": "kubernetes.io/h2c", "metrics": "http"}


def _ports(ports: Mapping[str, int]) -> Sequence[Manifest]:
    return [
        {"name": name, "port": port, "targetPort": name, "protocol": "TCP", "appProtocol": _PROTOCOLS[name]}
        for name, port in ports.items()
    ]
