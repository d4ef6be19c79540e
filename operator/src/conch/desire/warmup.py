"""The warm-up Job of a revision: the gate before its first share of the requests.

It is made from the stored pod template, so it runs the image that the revision's agents run, whatever the
operator has become since. Its pod has no API credentials: the result is its termination message
(`conch.observe.warmup` reads it). Its pod belongs to the service, but is named otherwise than serving pods
(LABEL_NAME), so that no Service and no disruption budget of theirs selects it; LABEL_WARMUP tells whose it is.
"""

from typing import Any, Final

from conch.api import InferenceService
from conch.api.kinds import JOB
from conch.api.meta import Manifest, child
from conch.api.names import LABEL_INSTANCE, LABEL_MANAGED_BY, LABEL_NAME
from conch.api.pod import OWN_VOLUME_PREFIX
from conch.observe.world import Body
from conch_contract import ModelManifest, names

# Seconds for what comes before the program: a node, and the image, which the revision's nodes have already.
START_SECONDS: Final = 300
# The result lives on in the service's status; the Job is kept for whoever wants to read its log.
KEPT_SECONDS: Final = 3600
_REFUSED: Final = 1  # the exit status of conch-warmup for what no retry cures
_SCRATCH: Final = OWN_VOLUME_PREFIX + "scratch"
_ALWAYS: Final = frozenset({f"{OWN_VOLUME_PREFIX}manifest", f"{OWN_VOLUME_PREFIX}warmup"})
_LEFT_OUT: Final = frozenset({f"{OWN_VOLUME_PREFIX}{part}" for part in ("models", "control", "agent-tmp")})
# Of the revision's pods: where they go (there the image is), and as whom they run.
_TAKEN: Final = (
    "nodeSelector",
    "tolerations",
    "imagePullSecrets",
    "serviceAccountName",
    "priorityClassName",
    "schedulerName",
    "securityContext",
)


def warmup_job_name(revision: str) -> str:
    """Return the name of a revision's warm-up Job."""
    return f"{revision}-warmup"


def warmup_job(service: InferenceService, revision: str, template: Body, manifest: str, pods: int) -> Manifest:
    """Build the Job that warms a revision's pods through its Service.

    `template` and `manifest` are the revision's own, as its ControllerRevision keeps them; `pods` is the number
    to reach. The manifest must ask for a warm-up.
    """
    asked = [model.warmup for model in ModelManifest.model_validate_json(manifest).models if model.warmup]
    seconds = round(sum(warmup.timeout_seconds for warmup in asked))
    return {
        **child(service, JOB, warmup_job_name(revision), revision),
        "spec": {
            "backoffLimit": 2,
            "activeDeadlineSeconds": 3 * seconds + START_SECONDS,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "FailJob",
                        "onExitCodes": {
                            "containerName": names.WARMUP_CONTAINER,
                            "operator": "In",
                            "values": [_REFUSED],
                        },
                    },
                    # A drained node is nobody's fault.
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                ]
            },
            "template": {
                "metadata": {"labels": warmup_labels(service.metadata.name, revision)},
                "spec": _pod(service, revision, template, pods, fetches=any(warmup.path for warmup in asked)),
            },
        },
    }


def warmup_labels(service: str, revision: str) -> dict[str, str]:
    """Return the labels of the Job's pod."""
    return {
        LABEL_NAME: "conch-warmup",
        LABEL_INSTANCE: service,
        LABEL_MANAGED_BY: "conch",
        names.LABEL_SERVICE: service,
        names.LABEL_WARMUP: revision,
    }


def _pod(service: InferenceService, revision: str, template: Body, pods: int, *, fetches: bool) -> Manifest:
    """Return the pod: the agent's image and mounts, less what only a serving pod needs.

    What storage needs (its Secret, a claim) is mounted only where requests are fetched from there: a claim that
    one node may use would hold the Job back.
    """
    serving: Any = template["spec"]
    [agent] = (each for each in serving["initContainers"] if each["name"] == names.AGENT_CONTAINER)
    mounts = [
        mount
        for mount in agent["volumeMounts"]
        if mount["name"] in _ALWAYS or (fetches and mount["name"] not in _LEFT_OUT)
    ]
    used = {mount["name"] for mount in mounts}
    host = f"{revision}.{service.metadata.namespace}.svc"
    container: Manifest = {
        "name": names.WARMUP_CONTAINER,
        "image": agent["image"],
        "imagePullPolicy": agent["imagePullPolicy"],
        "command": ["conch-warmup", f"--host={host}", f"--pods={pods}"],
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}},
        "securityContext": agent["securityContext"],
        # Without a report (killed for memory, say) the end of the log is the next best.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [*mounts, {"name": _SCRATCH, "mountPath": "/tmp"}],  # noqa: S108  an emptyDir
    }
    spec: Manifest = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 5,
        "containers": [container],
        "volumes": [
            *(volume for volume in serving["volumes"] if volume["name"] in used),
            {"name": _SCRATCH, "emptyDir": {}},
        ],
    }
    spec |= {field: serving[field] for field in _TAKEN if field in serving}
    nodes = serving.get("affinity", {}).get("nodeAffinity")
    return {**spec, "affinity": {"nodeAffinity": nodes}} if nodes else spec
