"""What the Jobs of a rollout have in common: they send a model's warm-up requests to revisions, and tell what came.

They are made from the stored pod template of the revision, so they run the image that its agents run, whatever the
operator has become since. Their pods have no API credentials: the result is a termination message.
"""

from dataclasses import dataclass
from typing import Any, Final

from conch.api.meta import Manifest
from conch.api.pod import OWN_VOLUME_PREFIX
from conch.desire.pod import AGENT_TMP
from conch.observe.snapshot import Body
from conch_contract import ModelManifest, names

# Seconds for what comes before the program: a node, and the image, which the revision's nodes have already.
START_SECONDS: Final = 300
# The result lives on in the service's status; the Job is kept for whoever wants to read its log.
KEPT_SECONDS: Final = 3600
_OWN: Final = "conch.dev/"  # the prefix of Conch's labels and annotations
# A pod with it is never Ready, so that no Service of the user's own, which selects the user's labels, sends requests.
_NEVER_READY: Final = {"readinessGates": [{"conditionType": f"{_OWN}serves-requests"}]}
_REFUSED: Final = 1  # the exit status of both programs for what no retry cures
_SCRATCH: Final = OWN_VOLUME_PREFIX + "scratch"
_ALWAYS: Final = frozenset({f"{OWN_VOLUME_PREFIX}manifest", f"{OWN_VOLUME_PREFIX}warmup"})
_LEFT_OUT: Final = frozenset({f"{OWN_VOLUME_PREFIX}models", f"{OWN_VOLUME_PREFIX}control", AGENT_TMP})
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


@dataclass(frozen=True)
class Program:
    """What a Job runs, and how its pod is labelled."""

    container: str
    command: tuple[str, ...]
    labels: dict[str, str]


def job_spec(program: Program, template: Body, manifest: str) -> Manifest:
    """Return the spec of a Job; `template` and `manifest` are the revision's, and ask for a warm-up."""
    asked = [model.warmup for model in ModelManifest.model_validate_json(manifest).models if model.warmup]
    seconds = round(sum(warmup.timeout_seconds for warmup in asked))
    return {
        "backoffLimit": 2,
        "activeDeadlineSeconds": 3 * seconds + START_SECONDS,
        "ttlSecondsAfterFinished": KEPT_SECONDS,
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailJob",
                    "onExitCodes": {"containerName": program.container, "operator": "In", "values": [_REFUSED]},
                },
                # A drained node is nobody's fault.
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            ]
        },
        "template": {
            "metadata": _metadata(program, template),
            "spec": _pod(program, template, fetches=any(warmup.path for warmup in asked)),
        },
    }


def _metadata(program: Program, template: Body) -> Manifest:
    """Return the pod's labels and annotations: the user's, which policies may require, and the Job's own."""
    meta = template["metadata"]
    labels = {**_user_entries(meta.get("labels")), **program.labels}
    annotations = _user_entries(meta.get("annotations"))
    return {"labels": labels, **({"annotations": annotations} if annotations else {})}


def _user_entries(said: Body | None) -> dict[str, str]:
    """Return the labels or annotations of a serving pod that are not Conch's."""
    return {key: str(value) for key, value in (said or {}).items() if not key.startswith(_OWN)}


def _pod(program: Program, template: Body, *, fetches: bool) -> Manifest:
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
    tmp: Manifest = next(
        (volume.get("emptyDir", {}) for volume in serving["volumes"] if volume["name"] == AGENT_TMP), {}
    )
    container: Manifest = {
        "name": program.container,
        "image": agent["image"],
        "imagePullPolicy": agent["imagePullPolicy"],
        "command": list(program.command),
        "resources": agent["resources"],
        "securityContext": agent["securityContext"],
        # Without a report (killed for memory, say) the end of the log is the next best.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [*mounts, {"name": _SCRATCH, "mountPath": "/tmp"}],  # noqa: S108  an emptyDir
    }
    spec: Manifest = {
        "restartPolicy": "Never",
        **_NEVER_READY,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 5,
        "containers": [container],
        "volumes": [
            *(volume for volume in serving["volumes"] if volume["name"] in used),
            {"name": _SCRATCH, "emptyDir": tmp},
        ],
    }
    spec |= {field: serving[field] for field in _TAKEN if field in serving}
    nodes = serving.get("affinity", {}).get("nodeAffinity")
    return {**spec, "affinity": {"nodeAffinity": nodes}} if nodes else spec
