"""A workload: the objects of pods, with a builder for each kind.

What the pods serve is a revision; see `revision`.
"""

import json
from typing import Any

from conch.api import InferenceService
from conch.api.kinds import CONFIG_MAP, DEPLOYMENT, DISRUPTION_BUDGET, SERVICE, Kind
from conch.api.meta import Manifest, child, selector
from conch.decide import Workload
from conch.desire.scaling import build_autoscaler, is_autoscaled
from conch.observe import Revision, Track
from conch.observe.contents import Contents
from conch.traffic.service import ports
from conch_contract import names
from conch_contract.formats import FORMATS
from conch_contract.manifest import select_model


def build_workload(track: Track, workload: Workload, revision: Revision) -> list[Manifest]:
    """Build the objects of a workload, in an order in which they can be created.

    Args:
        track: The track.
        workload: The workload.
        revision: The revision that its pods serve.
    """
    service = track.service
    return [
        build_config_map(service, workload, revision),
        build_service(service, workload),
        build_disruption_budget(service, workload),
        build_deployment(service, workload, revision),
        *([build_autoscaler(track, workload)] if is_autoscaled(service, workload) else []),
    ]


def _build_head(service: InferenceService, kind: Kind, workload: Workload) -> Manifest:
    """Return apiVersion, kind and metadata of an object."""
    return child(service, kind, workload.name, workload.name)


def build_config_map(service: InferenceService, workload: Workload, revision: Revision) -> Manifest:
    """Build the ConfigMap with the model manifest of the pods; after the first ready pod, with its content."""
    return {
        **_build_head(service, CONFIG_MAP, workload),
        "data": {names.MANIFEST_FILE: _pin(revision)},
    }


def _pin(revision: Revision) -> str:
    """Return the manifest with the contents of the revision's first ready pod, if there was one."""
    if not revision.contents:
        return revision.manifest
    manifest = json.loads(revision.manifest)  # as it is stored, with fields that only another version of Conch knows
    models = [model for source in manifest["models"] for model in _pin_source(source, revision.contents)]
    return json.dumps({**manifest, "models": models}, separators=(",", ":"))


def _pin_source(source: dict[str, Any], contents: Contents) -> list[dict[str, Any]]:
    """Return a model with its content, and a repository as the models that the first ready pod found in it."""
    name = source.get("name")
    if not isinstance(name, str) or name not in contents:
        return [source]
    row = FORMATS.get(source.get("format", ""))
    if row is None or not row.is_repository:
        return [{**source, **contents[name].to_wire()}]
    return [{**select_model(source, each), **content.to_wire()} for each, content in sorted(contents.items())]


def build_deployment(service: InferenceService, workload: Workload, revision: Revision) -> Manifest:
    """Build the Deployment, without replicas if an autoscaler sets them."""
    spec: Manifest = {
        "selector": {"matchLabels": selector(service, workload.name)},
        "template": revision.template,
        "revisionHistoryLimit": 0,  # each revision has its own Deployment, without earlier ReplicaSets
        "progressDeadlineSeconds": max(1, round(service.spec.rollout.progress_deadline_seconds)),
    }
    if not is_autoscaled(service, workload):
        spec["replicas"] = workload.minimum
    return {**_build_head(service, DEPLOYMENT, workload), "spec": spec}


def build_service(service: InferenceService, workload: Workload) -> Manifest:
    """Build the Service, which routes and Prometheus use."""
    return {
        **_build_head(service, SERVICE, workload),
        "spec": {
            "selector": selector(service, workload.name),
            "ports": ports({"http": names.HTTP_PORT, "grpc": names.GRPC_PORT, "metrics": names.METRICS_PORT}),
        },
    }


def build_disruption_budget(service: InferenceService, workload: Workload) -> Manifest:
    """Build the PodDisruptionBudget: a drain evicts a quarter of the pods at once, at least one.

    Each workload has its own. With one for both revisions of a rollout, a drain could evict all pods of one of them.
    """
    return {
        **_build_head(service, DISRUPTION_BUDGET, workload),
        "spec": {
            "selector": {"matchLabels": selector(service, workload.name)},
            "maxUnavailable": "25%",  # rounded up, so that a service with one pod does not block a drain
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
