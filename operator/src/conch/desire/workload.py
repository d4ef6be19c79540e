"""A workload: the objects of pods, with a builder for each kind.

What the pods serve is a revision; see `revision`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from conch.api import InferenceService
from conch.api.kinds import CONFIG_MAP, DEPLOYMENT, DISRUPTION_BUDGET, SERVICE, Kind
from conch.api.meta import Manifest, child, selector, workload_selector
from conch.decide import Workload
from conch.desire.scaling import build_autoscaler, is_autoscaled
from conch.observe import Revision, Track
from conch.observe.contents import Contents
from conch.observe.fields import mapping
from conch.observe.pod import Body
from conch.traffic.service import ports, select_pods
from conch_contract import SignaturePolicy, names
from conch_contract.formats import FORMATS
from conch_contract.manifest import select_model


def build_workload(
    track: Track, workload: Workload, origin: Revision | None, served: Sequence[Revision | None]
) -> list[Manifest]:
    """Build the objects of a workload, in an order in which they can be created.

    Args:
        track: The track.
        workload: The workload.
        origin: The revision whose pod template its pods have; None: its ControllerRevision is missing, and the
            Deployment stays as it is until a rollout replaces it.
        served: The revisions that its pods serve, first the one with which new pods begin; None: its
            ControllerRevision is missing, and the ConfigMap stays as it is.
    """
    service, known = track.service, [revision for revision in served if revision is not None]
    has_lasting_pods = origin.has_lasting_pods if origin else _has_lasting_pods(track.deployment(workload.name))
    select = workload_selector if has_lasting_pods else selector
    pods = select(service, workload.name)
    return [
        *(
            [build_config_map(service, workload, known, has_lasting_pods, track.signature_policy)]
            if len(known) == len(served)
            else []
        ),
        build_disruption_budget(service, workload, pods),
        *([build_deployment(service, workload, origin.template, pods)] if origin else []),
        *([build_autoscaler(track, workload)] if is_autoscaled(service, workload) else []),
    ]


def build_revision_objects(track: Track, workload: Workload, revision: Revision) -> list[Manifest]:
    """Build the objects of a revision: its Service, and its manifest for Jobs where the pods are another's."""
    service = track.service
    manifests = [build_service(service, workload, revision.name)]
    if revision.name != workload.name:
        head = child(service, CONFIG_MAP, revision.name, revision.name)
        data = {names.MANIFEST_FILE: _pin(revision), **_build_policy(track.signature_policy)}
        manifests.append({**head, "data": data})
    return manifests


def _build_head(service: InferenceService, kind: Kind, workload: Workload) -> Manifest:
    """Return apiVersion, kind and metadata of an object."""
    return child(service, kind, workload.name, workload.name)


def _has_lasting_pods(deployment: Body | None) -> bool:
    """Whether the pods of a Deployment can serve other revisions, one after another."""
    pods = mapping(mapping(deployment).get("spec")).get("selector")
    return names.LABEL_WORKLOAD in mapping(mapping(pods).get("matchLabels"))


def build_config_map(
    service: InferenceService,
    workload: Workload,
    served: Sequence[Revision],
    has_lasting_pods: bool,
    policy: SignaturePolicy | None,
) -> Manifest:
    """Build the ConfigMap with the model manifests of the pods; after the first ready pod, with its content.

    The policy in force is beside the manifests of all revisions, also of those that are older than it.
    """
    first, *others = served
    if not has_lasting_pods:
        data = {names.MANIFEST_FILE: _pin(first)}
    else:
        data = {names.MANIFEST_FILE: _pin(first, of=workload)}
        data |= {f"{revision.name}.json": _pin(revision, of=workload) for revision in others}
    return {**_build_head(service, CONFIG_MAP, workload), "data": {**data, **_build_policy(policy)}}


def _build_policy(policy: SignaturePolicy | None) -> dict[str, str]:
    """Return the file of the namespace's signature policy, if it has one."""
    return {names.POLICY_FILE: policy.to_json()} if policy else {}


def _pin(revision: Revision, *, of: Workload | None = None) -> str:
    """Return the manifest with the contents of the revision's first ready pod, if there was one.

    Args:
        revision: The revision.
        of: The workload whose pods may change their revision, which they then report; None: there is none.
    """
    if not revision.contents and of is None:
        return revision.manifest
    manifest = json.loads(revision.manifest)  # as it is stored, with fields that only another version of Conch knows
    if revision.contents:
        models = [model for source in manifest["models"] for model in _pin_source(source, revision.contents)]
        manifest = {**manifest, "models": models}
    if of is not None:
        manifest["revision"] = revision.name
        if of.is_in_place:
            manifest["inPlace"] = True
    return json.dumps(manifest, separators=(",", ":"))


def _pin_source(source: dict[str, Any], contents: Contents) -> list[dict[str, Any]]:
    """Return a model with its content, and a repository as the models that the first ready pod found in it."""
    name = source.get("name")
    if not isinstance(name, str) or name not in contents:
        return [source]
    row = FORMATS.get(source.get("format", ""))
    if row is None or not row.is_repository:
        return [{**source, **contents[name].to_wire()}]
    return [{**select_model(source, each), **content.to_wire()} for each, content in sorted(contents.items())]


def build_deployment(
    service: InferenceService, workload: Workload, template: Body, pods: Mapping[str, str]
) -> Manifest:
    """Build the Deployment, without replicas if an autoscaler sets them.

    Args:
        service: The service.
        workload: The workload.
        template: Of its pods.
        pods: Their labels, by which it selects them. A Deployment's selector is immutable.
    """
    spec: Manifest = {
        "selector": {"matchLabels": pods},
        "template": template,
        "revisionHistoryLimit": 0,  # each workload has its own Deployment, without earlier ReplicaSets
        "progressDeadlineSeconds": max(1, round(service.spec.rollout.progress_deadline_seconds)),
    }
    if not is_autoscaled(service, workload):
        spec["replicas"] = workload.minimum
    return {**_build_head(service, DEPLOYMENT, workload), "spec": spec}


def build_service(service: InferenceService, workload: Workload, revision: str) -> Manifest:
    """Build the Service of a revision, which routes and Prometheus use."""
    is_selected_by_workload = revision in workload.selecting_all
    return {
        **child(service, SERVICE, revision, revision),
        "spec": {
            "selector": select_pods(service, revision, workload.name if is_selected_by_workload else ""),
            "ports": ports({"http": names.HTTP_PORT, "grpc": names.GRPC_PORT, "metrics": names.METRICS_PORT}),
        },
    }


def build_disruption_budget(service: InferenceService, workload: Workload, pods: Mapping[str, str]) -> Manifest:
    """Build the PodDisruptionBudget of pods with these labels: a drain evicts a quarter at once, at least one.

    Each workload has its own. With one for both revisions of a rollout, a drain could evict all pods of one of them.
    """
    return {
        **_build_head(service, DISRUPTION_BUDGET, workload),
        "spec": {
            "selector": {"matchLabels": pods},
            "maxUnavailable": "25%",  # rounded up, so that a service with one pod does not block a drain
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
