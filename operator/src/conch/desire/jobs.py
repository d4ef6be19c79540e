"""The builder of revision Jobs: programs that send requests to revisions.

A Job is built from the stored pod template of the revision, so it runs the image that the revision's agents run, also
after an upgrade of the operator. Its pod has no API credentials: the result is a termination message, which
`conch.observe.jobs` reads. No Service and no disruption budget of serving pods selects the pod: it has another
LABEL_NAME, and the label of the Job in place of LABEL_REVISION.
"""

from dataclasses import dataclass
from typing import Any, Final, Self

from conch.api import InferenceService
from conch.api.kinds import JOB
from conch.api.meta import Manifest, child
from conch.api.names import LABEL_INSTANCE, LABEL_MANAGED_BY, LABEL_NAME
from conch.api.pod import OWN_VOLUME_PREFIX
from conch.desire.pod import AGENT_TMP
from conch.observe import Revision
from conch.observe.pod import Body
from conch_contract import JobReport, ModelManifest, Warmup, names
from conch_contract.job_report import EXIT_FINAL
from conch_contract.revision_jobs import RevisionJob

# Seconds until the program starts: for a node, and for the image, which the revision's nodes have.
START_SECONDS: Final = 300
# The result is in the service's status; the Job is kept for its log.
TTL_SECONDS: Final = 3600
_RETRIES: Final = 2
_OWN: Final = "conch.dev/"  # the prefix of Conch's labels and annotations
# A pod with it is never ready, so that no Service of a user, which selects the user's labels, sends it requests.
_NEVER_READY: Final = {"readinessGates": [{"conditionType": f"{_OWN}serves-requests"}]}
_SCRATCH: Final = OWN_VOLUME_PREFIX + "scratch"
_INCLUDED: Final = frozenset({f"{OWN_VOLUME_PREFIX}manifest", f"{OWN_VOLUME_PREFIX}warmup"})
_EXCLUDED: Final = frozenset({f"{OWN_VOLUME_PREFIX}models", f"{OWN_VOLUME_PREFIX}control", AGENT_TMP})
# Fields of the revision's pods that the Job's pod has too: its nodes, which have the image, and its user.
_COPIED_FIELDS: Final = (
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
    """A run of a revision Job's program.

    Attributes:
        arguments: The command line after the program.
        seconds: Timeout of one run. The Job has it for each retry.
        fetches: True if the program reads files of the model's storage.
    """

    arguments: tuple[str, ...]
    seconds: float
    fetches: bool = False

    @classmethod
    def build(cls, revision: Revision, *arguments: str) -> Self:
        """Return a run that sends the requests of the entry's warm-up, within the warm-up's timeout.

        Args:
            revision: The revision, whose manifest has a warm-up.
            arguments: The command line after the program.
        """
        source = ModelManifest.model_validate_json(revision.manifest).entry_source
        warmup = (source.warmup if source else None) or Warmup()
        return cls(arguments, warmup.timeout_seconds, fetches=bool(warmup.path))


def format_host(service: InferenceService, revision: str) -> str:
    """Return the hostname of a revision's Service.

    Args:
        service: The service.
        revision: Name of the revision.
    """
    return f"{revision}.{service.metadata.namespace}.svc"


def build_revision_job(
    job: RevisionJob[JobReport], service: InferenceService, revision: Revision, program: Program
) -> Manifest:
    """Build a Job of a revision.

    Args:
        job: The row of the Job.
        service: The service.
        revision: The revision, whose stored pod template the Job's pod follows.
        program: The run of the Job's program.
    """
    head = child(service, JOB, job.format_name(revision.name), revision.name)
    head["metadata"]["labels"] |= {job.label: revision.name}
    # A disruption, such as the drain of a node, is no failure of the program.
    disruption = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    final = {"containerName": job.name, "operator": "In", "values": [EXIT_FINAL]}
    return {
        **head,
        "spec": {
            "backoffLimit": _RETRIES,
            "activeDeadlineSeconds": (_RETRIES + 1) * round(program.seconds) + START_SECONDS,
            "ttlSecondsAfterFinished": TTL_SECONDS,
            "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": final}, disruption]},
            "template": {
                "metadata": _build_metadata(job, service, revision),
                "spec": _build_pod(job, revision.template, program),
            },
        },
    }


def _build_metadata(job: RevisionJob[JobReport], service: InferenceService, revision: Revision) -> Manifest:
    """Return the pod's labels and annotations: the user's, which policies may require, and the Job's own."""
    meta = revision.template["metadata"]
    labels = {
        **_select_user_entries(meta.get("labels")),
        LABEL_NAME: job.program,
        LABEL_INSTANCE: service.metadata.name,
        LABEL_MANAGED_BY: "conch",
        names.LABEL_SERVICE: service.metadata.name,
        job.label: revision.name,
    }
    annotations = _select_user_entries(meta.get("annotations"))
    return {"labels": labels, **({"annotations": annotations} if annotations else {})}


def _select_user_entries(entries: Body | None) -> dict[str, str]:
    """Return the labels or annotations of a serving pod that are not Conch's."""
    return {key: str(value) for key, value in (entries or {}).items() if not key.startswith(_OWN)}


def _build_pod(job: RevisionJob[JobReport], template: Body, program: Program) -> Manifest:
    """Return the pod: the agent's image and mounts, without those that only a serving pod needs.

    The mounts of the storage (its Secret, a claim) are there only if the program reads files of it: a claim that one
    node at a time may mount would delay the Job.
    """
    serving: Any = template["spec"]
    [agent] = (each for each in serving["initContainers"] if each["name"] == names.AGENT_CONTAINER)
    mounts = [
        mount
        for mount in agent["volumeMounts"]
        if mount["name"] in _INCLUDED or (program.fetches and mount["name"] not in _EXCLUDED)
    ]
    used = {mount["name"] for mount in mounts}
    tmp: Manifest = next(
        (volume.get("emptyDir", {}) for volume in serving["volumes"] if volume["name"] == AGENT_TMP), {}
    )
    # Kubernetes expands $(NAME) in commands.
    command = [job.program, *(argument.replace("$", "$$") for argument in program.arguments)]
    container: Manifest = {
        "name": job.name,
        "image": agent["image"],
        "imagePullPolicy": agent["imagePullPolicy"],
        "command": command,
        "resources": agent["resources"],
        "securityContext": agent["securityContext"],
        # The end of the log, if the program is killed before it writes its report.
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
    spec |= {field: serving[field] for field in _COPIED_FIELDS if field in serving}
    nodes = serving.get("affinity", {}).get("nodeAffinity")
    return {**spec, "affinity": {"nodeAffinity": nodes}} if nodes else spec
