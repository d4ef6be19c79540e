"""Diagnosis of a revision without ready pods: a chain of pure checks, the most specific first.

Each check reads one part of the track and returns a finding, or None. (The shape is cert-manager's policy chain:
Input -> reason, message, violated.)
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from conch.api.reasons import Reason
from conch.observe import Finding, Pod, Track
from conch.observe.fields import moment, text
from conch_contract import ModelReport, ModelState, names
from conch_contract.remedies import SHARED_MEMORY
from conch_contract.report import CRASH_SUSPECTED, CRASHED, is_left_out

# Minimum restarts of a container in a crash loop that is not ready.
CRASHES: Final = 2
# Seconds for which the last failed pod of a revision counts. A ReplicaSet replaces a failed pod at once, and the
# garbage collector deletes it much later.
FAILED_SECONDS: Final = 600.0
# Failures with more seconds between them are unrelated.
RELATED_SECONDS: Final = 3600.0
# The kubelet's reasons for the pods of a node that shuts down.
_NODE_SHUTDOWN: Final = frozenset({"Terminated", "NodeShutdown"})
# Seconds that the clock of a node may be ahead.
SKEW_SECONDS: Final = 60.0
# 128 and SIGBUS: a process wrote to memory beyond the size of /dev/shm.
BUS_ERROR: Final = 135
# A ready pod is in the EndpointSlices of its Service within a second or two. Behind a slow API server the EndpointSlice
# controller tries again after 1, 2, 4, 8 and 16 s: until then it may have to do with nothing but load.
LISTED_SECONDS: Final = 60.0
# Seconds after the assignment of a revision to a pod, until which its agent reports.
REPORTED_SECONDS: Final = 60.0
_ENDS: Final = ("state", "lastState")
_BACK_OFF: Final = re.compile(r'^Back-off pulling image "[^"]*": \w+: ')

# Remedies for a failed pod, by the kubelet's reason.
_ADVICE: Final = {
    "Evicted": "Store less, raise the limit that the message names, or request ephemeral-storage and memory.",
    "UnexpectedAdmissionError": "Check the device plugin of the node.",
}

# Reasons of the kubelet's and the attach controller's events.
_NOT_STARTED: Final = {
    "FailedMount": Reason.VOLUME_NOT_MOUNTED,
    "FailedMapVolume": Reason.VOLUME_NOT_MOUNTED,
    "FailedAttachVolume": Reason.VOLUME_NOT_MOUNTED,
    "FailedCreatePodSandBox": Reason.POD_NOT_STARTED,
    "FailedPodSandBoxStatus": Reason.POD_NOT_STARTED,
    "NetworkNotReady": Reason.POD_NOT_STARTED,
}

Check = Callable[[Track, str], Finding | None]

# Reasons of the kubelet and the container runtime for a waiting container. Any other reason is PodNotStarted.
_WAITING: Final = {
    "ErrImagePull": Reason.IMAGE_PULL_FAILED,
    "ImagePullBackOff": Reason.IMAGE_PULL_FAILED,
    "ErrImageNeverPull": Reason.IMAGE_PULL_FAILED,
    "ImageInspectError": Reason.IMAGE_PULL_FAILED,
    "InvalidImageName": Reason.IMAGE_PULL_FAILED,
    "RegistryUnavailable": Reason.IMAGE_PULL_FAILED,
    "SignatureValidationFailed": Reason.IMAGE_PULL_FAILED,
    "CreateContainerConfigError": Reason.CONTAINER_CONFIG_INVALID,
    "CreateContainerError": Reason.CONTAINER_CONFIG_INVALID,
    "RunContainerError": Reason.CONTAINER_CONFIG_INVALID,
}
_COMING_UP: Final = frozenset({"", "PodInitializing", "ContainerCreating", "CrashLoopBackOff"})


def diagnose(track: Track, revision: str) -> Finding | None:
    """Return the finding for a revision without ready pods; None: no check has one."""
    return next((found for check in CHECKS if (found := check(track, revision)) is not None), None)


def diagnose_candidate(track: Track, revision: str, sharing: str = "") -> Finding | None:
    """Return the finding for a revision that lacks pods; None: no check has one.

    Args:
        track: The track.
        revision: The revision.
        sharing: The revision whose pods change to it, and may be what is missing; empty: it has pods of its own.
    """
    found = diagnose(track, revision) or find_unreported_pod(track, revision) or find_unlisted_pod(track, revision)
    return found or (diagnose(track, sharing) if sharing else None)


def pods_refused(track: Track, revision: str) -> Finding | None:
    """Return the finding for pods that a quota, Pod Security or an admission webhook refuses."""
    deployment = track.deployment(track.workload_of(revision)) or {}
    for condition in (deployment.get("status") or {}).get("conditions") or ():
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            word = Reason.QUOTA_EXCEEDED if "exceeded quota" in condition["message"] else Reason.PODS_REFUSED
            return Finding(word, f"The cluster refuses the pods of {revision}: {condition['message']}")
    return None


def unschedulable(track: Track, revision: str) -> Finding | None:
    """Return the finding for a pod that the scheduler places on no node."""
    for pod in track.pods_of(revision):
        for condition in pod.status["conditions"]:
            if condition["type"] == "PodScheduled" and condition["reason"] == "Unschedulable":
                return Finding(Reason.UNSCHEDULABLE, f"No node takes a pod of {revision}: {condition['message']}")
    return None


def is_starting(pod: Pod) -> bool:
    """Whether a pod has a node, and containers that have not started."""
    scheduled = any(c["type"] == "PodScheduled" and c["status"] == "True" for c in pod.status["conditions"])
    return scheduled and pod.status["phase"] == "Pending"


def not_started(track: Track, revision: str) -> Finding | None:
    """Return the finding for a pod on a node without containers, from its events: a volume, or the network."""
    for pod in track.pods_of(revision):
        warning = track.warnings.get(pod.uid) if is_starting(pod) else None
        word = _NOT_STARTED.get(warning.reason) if warning else None
        if warning and word:
            return Finding(word, f"Pod {pod.name} has a node and does not start: {warning.message}")
    return None


def container_waits(track: Track, revision: str) -> Finding | None:
    """Return the finding for a container that the kubelet cannot start, most often because of its image."""
    for container in _containers(track, revision):
        waiting = container.get("state", {}).get("waiting", {})
        reason = waiting.get("reason", "")
        if reason not in _COMING_UP:
            # The kubelet alternates between two messages of the same error.
            message = _BACK_OFF.sub("", waiting.get("message") or reason)
            word = _WAITING.get(reason, Reason.POD_NOT_STARTED)
            return Finding(word, f"Container {container['name']} of {revision} cannot start: {message}")
    return None


def model_failed(track: Track, revision: str) -> Finding | None:
    """Return the finding for a model that the agent could not fetch, or that Triton could not load."""
    for pod in track.pods_of(revision):
        for model in pod.report.models if pod.report else ():
            if model.state is ModelState.FAILED and not is_left_out(model):
                return Finding(model.reason or Reason.MODEL_FAILED, _sentence(model))
    return None


def find_waiting_model(track: Track, revision: str) -> Finding | None:
    """Return the finding for a model whose agent waits: for Triton, for clients that keep connections, or for a load.

    The last end of a container that is not ready is in the message: an agent that waits for Triton does not know it.
    """
    for pod in track.pods_of(revision):
        for model in pod.report.models if pod.report is not None and not pod.ready else ():
            if model.reason and not is_left_out(model):
                end = _describe_end(one for one in pod.status["containers"] if not one.get("ready"))
                return Finding(model.reason, _sentence(model) + end)
    return None


def find_unlisted_pod(track: Track, revision: str) -> Finding | None:
    """Return the finding for a pod that is ready for LISTED_SECONDS and not in its Service's EndpointSlices."""
    for pod in track.pods_of(revision):
        since = moment(pod.status["readySince"])
        since = max(since, pod.assigned_at) if since is not None else None
        if pod.listed or not pod.is_up or since is None or track.now - since <= LISTED_SECONDS:
            continue
        return Finding(
            Reason.ENDPOINTS_MISSING,
            f"Pod {pod.name} is ready since {pod.status['readySince']}, and no EndpointSlice of Service {revision}"
            " lists it. Check that kube-controller-manager runs and may write EndpointSlices.",
        )
    return None


def find_unreported_pod(track: Track, revision: str) -> Finding | None:
    """Return the finding for a pod whose revision was changed and whose agent has not answered for REPORTED_SECONDS."""
    for pod in track.pods_of(revision):
        if pod.report is None and pod.is_changing and pod.is_up and track.now - pod.assigned_at > REPORTED_SECONDS:
            return Finding(
                Reason.REPORT_MISSING,
                f"Pod {pod.name} has to serve {revision}, of which its agent has reported nothing for a minute. Check"
                f" that network policies let the operator reach port {names.AGENT_PORT} of the pod.",
            )
    return None


def find_failure_in_place(track: Track, revision: str) -> Finding | None:
    """Return why a pod that changes in place has to go back at once.

    Triton answers with the new model, and its warm-up has failed; or that is not loaded, and Triton answers no more.
    """
    for pod in track.pods_of(revision):
        for model in pod.report.models if pod.report else ():
            if model.state is not ModelState.FAILED or is_left_out(model):
                continue
            is_proved = model.warmup is not None and model.warmup.has_failed and not model.warmup.is_retryable
            if is_proved or not pod.is_up:
                return Finding(model.reason or Reason.MODEL_FAILED, _sentence(model))
    return None


def find_changed_content(track: Track, revision: str) -> Finding | None:
    """Return the finding for files at storageUri that changed: until they are restored, new pods cannot start."""
    for pod in track.pods_of(revision):
        for model in pod.report.models if pod.report and not pod.ready else ():
            if model.reason == Reason.CONTENT_CHANGED:
                return Finding(Reason.CONTENT_CHANGED, _sentence(model))
    return None


def crash_loop(track: Track, revision: str) -> Finding | None:
    """Return the finding for a container in a crash loop, also while it runs between two restarts."""
    for pod, container in _list_containers(track, revision):
        last = container.get("lastState", {}).get("terminated")
        if last is None or container.get("ready") or container.get("restartCount", 0) < CRASHES:
            continue
        if (moment(text(last.get("startedAt"))) or track.now) < pod.assigned_at:
            continue  # it ended at most once since it has to serve the revision
        name, advice = container["name"], _explain_exit(container, last)
        if name == names.TRITON_CONTAINER:
            if culprit := _find_culprit(pod):
                return Finding(culprit.reason, _sentence(culprit))
            advice += _describe_suspects(pod)
        log = f"kubectl logs -l {names.LABEL_REVISION}={revision} -c {name} --previous"
        return Finding(
            Reason.CRASH_LOOPING,
            f"Container {name} of {revision} ends again and again ({_how(last)}).{advice} See: {log}",
        )
    return None


def find_failing_pods(track: Track, revision: str) -> Finding | None:
    """Return the finding for a revision whose pods, and then their replacements, the kubelet evicts or refuses."""
    failures = _list_failures(track, revision)
    if not any(pod.created_at >= failures[0][0] for _, pod in failures[1:]):
        return None  # at most one pod failed, or they failed together, as those of a lost node
    status = failures[-1][1].status
    reason, message = status["reason"] or "Failed", status["message"].rstrip(". ")
    advice = _ADVICE.get(reason, f"See: kubectl describe pods -l {names.LABEL_REVISION}={revision}")
    how = f"{reason}: {message}" if message else reason
    return Finding(
        Reason.PODS_FAIL, f"Pods of {revision} fail on their nodes, and so do their replacements. {how}. {advice}"
    )


def failing_seconds(track: Track, revision: str) -> float | None:
    """Return the remaining seconds for which the failed pods of a revision count; None: they do not."""
    failures = _list_failures(track, revision)
    return failures[-1][0] + FAILED_SECONDS - track.now if failures else None


def _list_failures(track: Track, revision: str) -> list[tuple[float, Pod]]:
    """Return the failed pods of a revision that count, each with the time of its failure, in order."""
    failures = sorted(
        (
            (pod.failed_at, pod)
            for pod in track.pods
            if pod.revision == revision and pod.failed_at is not None and pod.failed_at <= track.now + SKEW_SECONDS
            if pod.status["reason"] not in _NODE_SHUTDOWN
        ),
        key=lambda failure: (failure[0], failure[1].name),
    )
    if not failures or track.now - failures[-1][0] >= FAILED_SECONDS:
        return []
    return [failure for failure in failures if failures[-1][0] - failure[0] <= RELATED_SECONDS]


def not_answering(track: Track, revision: str) -> Finding:
    """Return the finding for a revision without ready pods, with the end of a container."""
    return Finding(Reason.NOT_ANSWERING, f"No pod of {revision} is ready.{_describe_end(_containers(track, revision))}")


def pod_template_missing(track: Track, revision: str) -> Finding | None:
    """Return the finding for the Deployment of a Swap whose ControllerRevision was deleted: it stays as it is."""
    workload = track.workload_of(revision)
    if workload in {revision, *track.revisions}:
        return None  # of its own revision it is created again, or not needed any more
    return Finding(
        Reason.POD_TEMPLATE_MISSING,
        f"ControllerRevision {workload}, which has the pod template of Deployment {workload}, is missing, so that the"
        " Deployment stays as it is. Change a field of the pods, such as pod.annotations: pods of another Deployment"
        " replace these.",
    )


CHECKS: Final[tuple[Check, ...]] = (
    pods_refused,
    unschedulable,
    container_waits,
    not_started,
    model_failed,
    crash_loop,
    find_failing_pods,
    pod_template_missing,
)


def _explain_exit(container: Mapping[str, Any], ended: Mapping[str, Any]) -> str:
    """Return the remedy for an end whose exit code has one cause; empty: the cause is in the log."""
    bus_error = container["name"] == names.TRITON_CONTAINER and ended.get("exitCode") == BUS_ERROR
    return f" The exit code is that of a bus error. {SHARED_MEMORY}" if bus_error else ""


def _describe_end(containers: Iterable[Mapping[str, Any]]) -> str:
    """Return a sentence, behind a space, about the first of these containers that has ended; empty: none has."""
    ends = ((one["name"], one.get(when, {}).get("terminated")) for one in containers for when in _ENDS)
    return next((f" Container {name} ended ({_how(end)})." for name, end in ends if end), "")


def _how(ended: Mapping[str, Any]) -> str:
    return f"{ended.get('reason', 'Error')}, exit code {ended.get('exitCode', '?')}"


def _find_culprit(pod: Pod) -> ModelReport | None:
    """Return the model that ends Triton; one that does not hold its pod is no failure of it otherwise."""
    return next((model for model in (pod.report.models if pod.report else ()) if model.reason in CRASHED), None)


def _describe_suspects(pod: Pod) -> str:
    """Return the sentences about several models of which one may end Triton; empty: there are none."""
    warnings = (warning for model in (pod.report.models if pod.report else ()) for warning in model.warnings)
    return next((f" {warning.message}" for warning in warnings if warning.reason == CRASH_SUSPECTED), "")


def _list_containers(track: Track, revision: str) -> Iterator[tuple[Pod, Mapping[str, Any]]]:
    for pod in track.pods_of(revision):
        for container in pod.status["containers"]:
            yield pod, container


def _containers(track: Track, revision: str) -> Iterator[Mapping[str, Any]]:
    return (container for _, container in _list_containers(track, revision))


def _sentence(model: ModelReport) -> str:
    return f"Model {model.name}: {model.message}"
