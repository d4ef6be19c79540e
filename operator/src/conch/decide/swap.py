"""Swap: whether the pods of the stable revision can serve the candidate, and whether they serve meanwhile."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from conch.api.analysis import named
from conch.api.models import REPOSITORY
from conch.api.triton import MODEL_FIELDS
from conch.decide.naming import NOT_OF_PODS
from conch.observe import Pod, Revision, Track
from conch.observe.fields import mapping, mappings, text
from conch.triton import has_response_cache
from conch_contract import names
from conch_contract.scheme import Mount
from conch_contract.schemes import find_scheme
from conch_contract.sentences import join_words

MIN_PODS: Final = 2  # of a service whose pods leave their Services: one serves while another changes


def find_swap_obstacle(track: Track, stable: str) -> str:
    """Return why the pods of the stable revision cannot serve the wanted one, in a sentence; empty: they can.

    It counts when a rollout begins.

    Args:
        track: The track, whose spec is that of the wanted revision.
        stable: The revision that carries the service.
    """
    workload = track.workload_of(stable)
    record = track.revisions.get(workload)
    if track.service.variant:
        return "Variants change with pods of their own."
    if record is None:
        return f"ControllerRevision {workload}, by which {stable} has its pods, is missing."
    if not record.has_lasting_pods:
        return f"An earlier version of Conch created the pods of {stable}, which lack the label {names.LABEL_WORKLOAD}."
    return _find_obstacle_of_pods(track, stable, record)


def _find_obstacle_of_pods(track: Track, stable: str, record: Revision) -> str:
    """Return why the pods of the stable revision cannot serve the wanted one; `record` is that of their workload."""
    fields = select_pod_fields(track.service.spec.predictor.to_wire())
    if changed := _list_changes(select_pod_fields(record.predictor), fields):
        return f"The change concerns the pods, and not only the model: {join_words(changed, 'and')}."
    if has_response_cache(track.service.spec.predictor.triton):  # its key is name and version of the model, and inputs
        return "Triton's response cache would return answers of the old model for requests to the new one."
    pods = track.replicas(track.workload_of(stable))
    if pods >= MIN_PODS or swaps_in_place(track, stable):
        return ""
    which = " of several models, or with a parity gate," if pods == 1 else ""
    return f"Swap{which} needs {MIN_PODS} pods, of which one serves while another changes; the service has {pods}."


def swaps_in_place(track: Track, stable: str) -> bool:
    """Return whether the pods of the stable revision go on to serve it while they load the wanted one.

    That is so of a service with one pod and one model, which Triton exchanges under its own lock. Several models call
    one another, so that a pod has to have left its Services before they change; and a gate that compares with the
    stable revision needs a pod of each.
    """
    record, gates = track.revisions.get(stable), named(track.service.spec.rollout.analysis)
    if record is None or track.replicas(track.workload_of(stable)) != 1 or any(gate.needs_stable for gate in gates):
        return False
    return all(map(_has_one_model, (record.predictor, track.service.spec.predictor.to_wire())))


def stays_in_place(track: Track, pods: Sequence[Pod], main: str) -> bool:
    """Return whether pods go on to serve what they serve while they load `main`, since none serves that yet.

    So it is after a change in place that was given up, whatever has become of its rollout.

    Args:
        track: The track.
        pods: Of a workload, without those that terminate.
        main: The revision that they have to serve.
    """
    served = {pod.serves for pod in pods if pod.answers} or {pod.serves for pod in pods}
    records = [track.revisions.get(name) for name in (main, *served)]
    is_lacking = bool(pods) and main not in served and all(pod.workload for pod in pods)
    return is_lacking and all(record is not None and _has_one_model(record.predictor) for record in records)


def _has_one_model(predictor: Mapping[str, Any]) -> bool:
    model = mapping(predictor.get("model"))
    return bool(model) and mapping(model.get("modelFormat")).get("name") != REPOSITORY


def _list_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return sorted(field for field in before.keys() | after.keys() if before.get(field) != after.get(field))


def select_pod_fields(predictor: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a predictor on which its pod template depends (`conch.desire.pod`), by their path."""
    of_content = {*NOT_OF_PODS, "entry", "model", "models", "pipeline", "triton", "warmup"}
    fields = {key: value for key, value in predictor.items() if key not in of_content}
    model, models = mapping(predictor.get("model")), list(mappings(predictor.get("models")))
    fields["the name that clients call"] = predictor.get("entry") or model.get("name")
    fields |= _select_mounts(models or [model])
    triton = mapping(predictor.get("triton"))
    fields |= {f"triton.{key}": value for key, value in triton.items() if key not in MODEL_FIELDS}
    if any(map(_has_rate_limiter, [predictor, *models])):
        fields["rateLimiter of instance groups"] = True  # a flag of Triton
    if config_maps := _list_warmup_config_maps([predictor, *models]):
        fields["warmup.configMapRef"] = config_maps
    return fields


def _has_rate_limiter(model: Mapping[str, Any]) -> bool:
    """Whether an instance group in `triton` of a predictor, or of one of its models, has a rate limiter."""
    groups = mappings(mapping(model.get("triton")).get("instanceGroups"))
    return any("rateLimiter" in group for group in groups)


def _list_warmup_config_maps(warmed: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the ConfigMaps that pods mount for the warm-ups of a predictor and of its models."""
    references = (mapping(mapping(each.get("warmup")).get("configMapRef")) for each in warmed)
    return [name for name in dict.fromkeys(text(reference.get("name")) for reference in references) if name]


def _select_mounts(models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what pods mount for models: Secrets, with folders of their own if there are several, claims and keys."""
    mirrors = [mirror for model in models for mirror in mappings(mapping(model.get("storage")).get("mirrors"))]
    storages = [*(mapping(model.get("storage")) for model in models), *mirrors]
    refs = (text(mapping(storage.get("secretRef")).get("name")) for storage in storages)
    secrets = [ref for ref in dict.fromkeys(refs) if ref]
    uris = [text(model.get("storageUri")) for model in models] + [text(mirror.get("uri")) for mirror in mirrors]
    mounts = dict.fromkeys(filter(None, map(_find_mount, uris)))
    found = {
        "storage": (secrets, len(models) > 1 or bool(mirrors)) if secrets else None,
        "storageUri": list(mounts),
        "storage.verify.signature.configMapRef": _list_trusted(models),
        "storage.decrypt.secretRef": _list_key_secrets(models),
    }
    return {field: value for field, value in found.items() if value}


def _list_trusted(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the ConfigMaps with trusted keys that pods mount for models."""
    checks = (mapping(mapping(model.get("storage")).get("verify")) for model in models)
    references = (mapping(mapping(check.get("signature")).get("configMapRef")) for check in checks)
    return [name for name in dict.fromkeys(text(reference.get("name")) for reference in references) if name]


def _list_key_secrets(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the Secrets with age identities that pods mount for models."""
    keys = (mapping(mapping(model.get("storage")).get("decrypt")) for model in models)
    names = (text(mapping(each.get("secretRef")).get("name")) for each in keys)
    return [name for name in dict.fromkeys(names) if name]


def _find_mount(uri: str) -> str:
    """Return the claim of a URI, or what stands for the user's volumes; empty: it mounts nothing."""
    scheme = find_scheme(uri)
    if scheme is None or scheme.mount == Mount.NONE:
        return ""
    return uri.partition("://")[2].partition("/")[0] if scheme.mount == Mount.CLAIM else scheme.mount.name
