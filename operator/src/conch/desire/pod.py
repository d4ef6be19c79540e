"""The pod of a revision: Triton, and the agent beside it as a native sidecar.

Everything here passes Pod Security `restricted`, and no container has API credentials.
The agent starts first (it writes the control key), is ready when its models are, and ends last.
"""

import math
from typing import Any, Final

from conch.api import InferenceService, Predictor
from conch.api.meta import Manifest, pod_labels
from conch.api.names import ANNOTATION_ASSIGNED, ANNOTATION_MODEL
from conch.api.pod import OWN_VOLUME_PREFIX
from conch.api.quantity import parse_quantity
from conch.desire.defaults import PodDefaults
from conch.desire.peers import build_peer_option
from conch.desire.placement import build_placement
from conch.desire.verification import list_key_secrets, list_trusted
from conch.triton import (
    DRAIN_SECONDS,
    END_SECONDS,
    POD_NAME_VARIABLE,
    build_server_command,
    build_trace_flags,
    count_cache_bytes,
    uses_rate_limiter,
)
from conch_contract import names
from conch_contract.scheme import Mount
from conch_contract.schemes import find_scheme, has_form

USER: Final = 1000
_SECURE: Final = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
# The agent: little CPU at rest, more while it fetches; memory for concurrent ranged reads.
_AGENT_RESOURCES: Final = {
    "requests": {"cpu": "50m", "memory": "128Mi"},
    "limits": {"cpu": "2", "memory": "1Gi"},
}
AGENT_TMP: Final = f"{OWN_VOLUME_PREFIX}agent-tmp"
_MODELS, _CONTROL, _MANIFEST, _SECRET, _SHM, _TMP, _CLAIM, _WARMUP, _CACHE, _TRUST, _KEYS = (
    OWN_VOLUME_PREFIX + part
    for part in ("models", "control", "manifest", "storage", "shm", "tmp", "claim", "warmup", "cache", "trust", "keys")
)


def build_pod_template(service: InferenceService, workload: str, defaults: PodDefaults) -> Manifest:
    """Return the PodTemplateSpec of a workload, which has the name of the revision with which its pods begin."""
    pod = service.spec.predictor.pod
    spec: Manifest = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            # The kubelet changes the group of all files of a volume at each start of a pod, unless its root has it.
            **({"fsGroupChangePolicy": "OnRootMismatch"} if _find_cache_claim(service) else {}),
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": _get_grace_seconds(service.spec.predictor),
        "initContainers": [_build_agent(service, defaults)],
        "containers": [_build_triton(service, workload, defaults)],
        "volumes": [*_build_volumes(service, workload, defaults), *(volume.to_wire() for volume in pod.volumes)],
        **build_placement(service, workload),
    }
    fields = pod.to_wire()
    spec |= {field: fields[field] for field in _COPIED_FIELDS if field in fields}
    meta = {
        "labels": {**pod.labels, **pod_labels(service, workload)},
        "annotations": {**pod.annotations, ANNOTATION_MODEL: service.model_name},
    }
    return {"metadata": meta, "spec": spec}


# Triton sees what has passed its checks, and no download: a parameter of a signed model could name a file of those.
_REPOSITORY_MOUNT: Final = {
    "name": _MODELS,
    "mountPath": names.REPOSITORY_DIR,
    "subPath": names.REPOSITORY_DIR.removeprefix(f"{names.MODELS_DIR}/"),
    "readOnly": True,
}
# The annotation as a file: the agent serves the revision that it names, also after it has changed.
_REVISION: Final = {
    "items": [
        {"path": names.REVISION_FILE, "fieldRef": {"fieldPath": f"metadata.annotations['{ANNOTATION_ASSIGNED}']"}},
    ],
}
_POD_NAME: Final = {"name": POD_NAME_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
_COPIED_FIELDS: Final = (
    "nodeSelector",
    "serviceAccountName",
    "imagePullSecrets",
    "priorityClassName",
    "runtimeClassName",
    "schedulerName",
)


def _get_grace_seconds(predictor: Predictor) -> int:
    """Return the grace period of a pod in seconds. Default: the drain, the longest request, and the end of Triton."""
    seconds = predictor.pod.termination_grace_period_seconds
    return seconds or DRAIN_SECONDS + math.ceil(predictor.longest_request_seconds) + END_SECONDS


def _build_agent(service: InferenceService, defaults: PodDefaults) -> Manifest:
    resources = service.spec.predictor.pod.agent_resources
    most = defaults.max_bytes(service.metadata.namespace)
    tracing = service.spec.predictor.triton.tracing
    cache = service.spec.predictor.cache
    flags = [f"--max-bytes={most}"] if most else []
    flags += [f"--cache-bytes={math.ceil(size)}"] if cache and (size := parse_quantity(cache.size_limit)) else []
    flags += [build_peer_option(service)] if cache and cache.peers else []
    flags += [f"--trace-rate={name}={rate}" for name, rate in tracing.model_rates.items()] if tracing else []
    mounts = [
        {"name": _MANIFEST, "mountPath": names.MANIFEST_DIR, "readOnly": True},
        {"name": _MODELS, "mountPath": names.MODELS_DIR},
        {"name": _CONTROL, "mountPath": names.CONTROL_DIR},
        {"name": AGENT_TMP, "mountPath": "/tmp"},  # noqa: S108  an emptyDir
    ]
    mounts += [{"name": _CACHE, "mountPath": names.CACHE_DIR}] if _find_cache_claim(service) else []
    mounts += [
        {"name": volume, "mountPath": _get_secret_folder(service, secret), "readOnly": True}
        for volume, secret in _name_volumes(_SECRET, _list_secrets(service))
    ]
    mounts += [
        {"name": volume, "mountPath": f"{names.PVC_DIR}/{claim}", "readOnly": True}
        for volume, claim in _name_claim_volumes(service)
    ]
    mounts += [
        {"name": volume, "mountPath": f"{names.WARMUP_DIR}/{requests}", "readOnly": True}
        for volume, requests in _name_volumes(_WARMUP, _list_warmup_config_maps(service))
    ]
    mounts += [
        {"name": volume, "mountPath": f"{names.TRUST_DIR}/{keys}", "readOnly": True}
        for volume, keys in _name_volumes(_TRUST, list_trusted(service.models))
    ]
    mounts += [
        {"name": volume, "mountPath": f"{names.DECRYPTION_DIR}/{secret}", "readOnly": True}
        for volume, secret in _name_volumes(_KEYS, list_key_secrets(service.models))
    ]
    if any(_find_mount(uri) == Mount.USER_VOLUMES for model in service.models for uri in model.uris):
        mounts += [mount.to_wire() for mount in service.spec.predictor.pod.volume_mounts]
    return {
        "name": names.AGENT_CONTAINER,
        "image": defaults.image,
        "imagePullPolicy": defaults.pull_policy,
        "command": ["conch-agent", *flags],
        "restartPolicy": "Always",  # a native sidecar: started before Triton, stopped after it
        "ports": [{"name": "agent", "containerPort": names.AGENT_PORT}],
        "startupProbe": _build_probe(names.LIVE_PATH, names.AGENT_PORT, period=1, failures=60),
        "livenessProbe": _build_probe(names.LIVE_PATH, names.AGENT_PORT, period=10, failures=6),
        "readinessProbe": _build_probe(names.READY_PATH, names.AGENT_PORT, period=1, failures=1),
        "resources": resources.to_wire() if resources else _AGENT_RESOURCES,
        "securityContext": _SECURE,
        "volumeMounts": mounts,
    }


def _build_triton(service: InferenceService, workload: str, defaults: PodDefaults) -> Manifest:
    predictor = service.spec.predictor
    container: Manifest = {
        "name": names.TRITON_CONTAINER,
        "image": predictor.triton.image or defaults.image,
        "imagePullPolicy": defaults.pull_policy,
        "command": build_server_command(
            predictor.triton.args,
            _get_grace_seconds(predictor),
            count_cache_bytes(predictor.triton),
            build_trace_flags(service, workload),
            rate_limiter=uses_rate_limiter(service.models),
        ),
        "ports": [
            {"name": "http", "containerPort": names.HTTP_PORT},
            {"name": "grpc", "containerPort": names.GRPC_PORT},
            {"name": "metrics", "containerPort": names.METRICS_PORT},
        ],
        # Triton's front end starts within seconds. Models load afterwards, and the agent reports their state.
        "startupProbe": _build_probe("/v2/health/live", names.HTTP_PORT, period=1, failures=120),
        "livenessProbe": _build_probe("/v2/health/live", names.HTTP_PORT, period=10, failures=6),
        # The agent checks the gRPC front end; this probe checks that of HTTP.
        "readinessProbe": _build_probe("/v2/health/live", names.HTTP_PORT, period=2, failures=2),
        # All proxies have removed the endpoint, and gRPC channels have moved, before Triton gets SIGTERM.
        "lifecycle": {"preStop": {"sleep": {"seconds": DRAIN_SECONDS}}},
        "securityContext": _SECURE,
        "volumeMounts": [
            _REPOSITORY_MOUNT,
            {"name": _CONTROL, "mountPath": names.CONTROL_DIR, "readOnly": True},
            {"name": _SHM, "mountPath": "/dev/shm"},  # noqa: S108  a memory emptyDir
            {"name": _TMP, "mountPath": "/tmp"},  # noqa: S108  an emptyDir
            *([{"name": _CACHE, "mountPath": names.CACHE_DIR, "readOnly": True}] if _find_cache_claim(service) else []),
            *(mount.to_wire() for mount in predictor.pod.volume_mounts),
        ],
    }
    if resources := predictor.resources.to_wire():
        container["resources"] = resources
    own = [_POD_NAME] if predictor.triton.tracing else []
    if env := [*own, *(variable.to_wire() for variable in predictor.pod.env)]:
        container["env"] = env
    return container


def _build_volumes(service: InferenceService, workload: str, defaults: PodDefaults) -> list[Manifest]:
    predictor = service.spec.predictor
    volumes: list[Manifest] = [
        {"name": _MANIFEST, "projected": {"sources": [{"configMap": {"name": workload}}, {"downwardAPI": _REVISION}]}},
        {"name": _MODELS, "emptyDir": {}},
        {"name": _CONTROL, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": _SHM, "emptyDir": {"medium": "Memory", "sizeLimit": predictor.triton.shm_size}},
        {"name": _TMP, **defaults.tmp},
        {"name": AGENT_TMP, **defaults.tmp},
    ]
    # Optional: a pod that waits for its volume has no report; an agent without credentials reports what it lacks.
    secrets = [
        *_name_volumes(_SECRET, _list_secrets(service)),
        *_name_volumes(_KEYS, list_key_secrets(service.models)),
    ]
    volumes += [{"name": volume, "secret": {"secretName": secret, "optional": True}} for volume, secret in secrets]
    volumes += [
        {"name": volume, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        for volume, claim in _name_claim_volumes(service)
        if volume != _CACHE
    ]
    if cache_claim := _find_cache_claim(service):
        volumes.append({"name": _CACHE, "persistentVolumeClaim": {"claimName": cache_claim}})
    # Optional for the same reason: the agent reports WarmupMissing, or KeyMissing.
    config_maps = [
        *_name_volumes(_WARMUP, _list_warmup_config_maps(service)),
        *_name_volumes(_TRUST, list_trusted(service.models)),
    ]
    volumes += [{"name": volume, "configMap": {"name": name, "optional": True}} for volume, name in config_maps]
    return volumes


def _list_secrets(service: InferenceService) -> list[str]:
    """Return the names of the storage Secrets, in the order of the models."""
    return list(dict.fromkeys(secret for model in service.models for secret in model.secrets))


def _get_secret_folder(service: InferenceService, secret: str) -> str:
    """Return the folder at which a storage Secret is mounted: of several places each Secret has its own."""
    return names.STORAGE_SECRET_DIR if has_one_place(service) else f"{names.STORAGE_SECRETS_DIR}/{secret}"


def has_one_place(service: InferenceService) -> bool:
    """Return True if the files of a service are at one place, whose Secret needs no name in the manifest.

    Args:
        service: The service.
    """
    return sum(len(model.uris) for model in service.models) == 1


def _name_volumes(name: str, objects: list[str]) -> list[tuple[str, str]]:
    """Return objects with the names of their volumes, of which all but the first are numbered.

    >>> _name_volumes("claim", ["a", "b"])
    [('claim', 'a'), ('claim-1', 'b')]
    """
    return [(f"{name}-{index}" if index else name, each) for index, each in enumerate(objects)]


def _list_warmup_config_maps(service: InferenceService) -> list[str]:
    """Return the names of the ConfigMaps with warm-up requests: that of the entry, which Jobs mount, is the first."""
    warmups = (service.spec.predictor.warmup, *(model.warmup for model in service.models))
    references = (warmup.config_map_ref for warmup in warmups if warmup)
    return list(dict.fromkeys(reference.name for reference in references if reference))


def _list_claims(service: InferenceService) -> list[str]:
    """Return the PersistentVolumeClaims of places whose scheme mounts one, in the order of the models.

    A place without the form of its scheme, as the API server lets it pass among mirrors, has none: the API server would
    refuse the pod with its volume, and the agent reports the place.
    """
    uris = (uri for model in service.models for uri in model.uris if _find_mount(uri) == Mount.CLAIM)
    places = (uri.partition("://")[2] for uri in uris if has_form(uri))
    return list(dict.fromkeys(place.partition("/")[0] for place in places))


def _name_claim_volumes(service: InferenceService) -> list[tuple[str, str]]:
    """Return these claims with the names of their volumes.

    One that is also the cache has the volume of the cache: a pod with two volumes of one claim may not start
    (kubernetes/kubernetes#82526).
    """
    cache_claim = _find_cache_claim(service)
    volumes = _name_volumes(_CLAIM, _list_claims(service))
    return [(_CACHE if claim == cache_claim else volume, claim) for volume, claim in volumes]


def _find_cache_claim(service: InferenceService) -> str | None:
    """Return the claim that is the cache; None: there is none."""
    cache = service.spec.predictor.cache
    return cache.claim_name if cache else None


def _find_mount(uri: str) -> Mount:
    """Return what the agent mounts for the scheme of a URI."""
    scheme = find_scheme(uri)
    return scheme.mount if scheme else Mount.NONE


def _build_probe(path: str, port: int, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": 5,
    }
