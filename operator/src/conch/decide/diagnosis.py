"""Why a revision is not up: a chain of pure checks, the most telling first.

Each check reads one thing of the track and answers with the sentence that the user will read, or with
nothing. (The shape is cert-manager's policy chain: Input -> reason, message, violated.)
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from conch.api.reasons import Reason
from conch.observe import Finding, Pod, Track
from conch.observe.fields import moment
from conch_contract import ModelReport, ModelState, names
from conch_contract.remedies import SHARED_MEMORY

# Restarts from which on a container that is not ready counts as crash-looping.
CRASHES: Final = 2
# Seconds in which the last failed pod of a revision counts. A ReplicaSet replaces a failed pod at once, and the garbage
# collector deletes it much later.
FAILED_SECONDS: Final = 600.0
# Failures that are further apart than this have nothing to do with each other.
RELATED_SECONDS: Final = 3600.0
# The kubelet's reasons for the pods of a node that shuts down.
_NODE_SHUTDOWN: Final = frozenset({"Terminated", "NodeShutdown"})
# The clock of a node may be ahead by so many seconds.
SKEW_SECONDS: Final = 60.0
# 128 and SIGBUS: a process wrote to memory that /dev/shm has no room for.
BUS_ERROR: Final = 135
# A pod that is ready is in the EndpointSlices of its Service within a second or two.
LISTED_SECONDS: Final = 30.0
_ENDS: Final = ("state", "lastState")
_BACK_OFF: Final = re.compile(r'^Back-off pulling image "[^"]*": \w+: ')

# What to do about a pod that failed, by the kubelet's reason.
_ADVICE: Final = {
    "Evicted": "Store less, raise the limit that the message names, or request ephemeral-storage and memory.",
    "UnexpectedAdmissionError": "Check the device plugin of the node.",
}

# The kubelet's and the attach controller's words, in events.
_NOT_STARTED: Final = {
    "FailedMount": Reason.VOLUME_NOT_MOUNTED,
    "FailedMapVolume": Reason.VOLUME_NOT_MOUNTED,
    "FailedAttachVolume": Reason.VOLUME_NOT_MOUNTED,
    "FailedCreatePodSandBox": Reason.POD_NOT_STARTED,
    "FailedPodSandBoxStatus": Reason.POD_NOT_STARTED,
    "NetworkNotReady": Reason.POD_NOT_STARTED,
}

Check = Callable[[Track, str], Finding | None]

# Why a container waits, as the kubelet and the container runtime name it. Any other reason is PodNotStarted.
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
    """Return why a revision is not up, if something is in its way."""
    return next((found for check in CHECKS if (found := check(track, revision)) is not None), None)


def pods_refused(track: Track, revision: str) -> Finding | None:
    """The ReplicaSet may not make pods: a quota, or Pod Security."""
    deployment = track.deployment(revision) or {}
    for condition in (deployment.get("status") or {}).get("conditions") or ():
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            word = Reason.QUOTA_EXCEEDED if "exceeded quota" in condition["message"] else Reason.PODS_REFUSED
            return Finding(word, f"The cluster refuses the pods of {revision}: {condition['message']}")
    return None


def unschedulable(track: Track, revision: str) -> Finding | None:
    """No node takes a pod."""
    for pod in track.pods_of(revision):
        for condition in pod.status["conditions"]:
            if condition["type"] == "PodScheduled" and condition["reason"] == "Unschedulable":
                return Finding(Reason.UNSCHEDULABLE, f"No node takes a pod of {revision}: {condition['message']}")
    return None


def is_starting(pod: Pod) -> bool:
    """Whether a pod has a node, and not all of its containers have been started."""
    scheduled = any(c["type"] == "PodScheduled" and c["status"] == "True" for c in pod.status["conditions"])
    return scheduled and pod.status["phase"] == "Pending"


def not_started(track: Track, revision: str) -> Finding | None:
    """A pod has a node and no container, for a reason that only events contain: a volume, or the network."""
    for pod in track.pods_of(revision):
        said = track.warnings.get(pod.uid) if is_starting(pod) else None
        word = _NOT_STARTED.get(said.reason) if said else None
        if said and word:
            return Finding(word, f"Pod {pod.name} has a node and does not start: {said.message}")
    return None


def container_waits(track: Track, revision: str) -> Finding | None:
    """The kubelet cannot start a container: most often its image."""
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
    """An agent could not fetch a model, or Triton would not load it."""
    for pod in track.pods_of(revision):
        for model in pod.report.models if pod.report else ():
            if model.state is ModelState.FAILED:
                return Finding(model.reason or Reason.MODEL_FAILED, _sentence(model))
    return None


def find_unlisted_pod(track: Track, revision: str) -> Finding | None:
    """Return the finding for a pod that has been ready for a while, and that its Service does not list."""
    for pod in track.pods_of(revision):
        since = moment(pod.status["readySince"])
        is_ready = any(c["type"] == "Ready" and c["status"] == "True" for c in pod.status["conditions"])
        if pod.ready or not is_ready or since is None or track.now - since <= LISTED_SECONDS:
            continue
        return Finding(
            Reason.ENDPOINTS_MISSING,
            f"Pod {pod.name} is ready since {pod.status['readySince']}, and no EndpointSlice of Service {revision}"
            " lists it. Check that kube-controller-manager runs and may write EndpointSlices.",
        )
    return None


def find_changed_content(track: Track, revision: str) -> Finding | None:
    """A pod refuses the files at storageUri: until they are restored, no pod can be added or replaced."""
    for pod in track.pods_of(revision):
        for model in pod.report.models if pod.report and not pod.ready else ():
            if model.reason == Reason.CONTENT_CHANGED:
                return Finding(Reason.CONTENT_CHANGED, _sentence(model))
    return None


def crash_loop(track: Track, revision: str) -> Finding | None:
    """A container ends again and again. It is so too while it runs for a moment before its next end."""
    for container in _containers(track, revision):
        last = container.get("lastState", {}).get("terminated")
        if last is None or container.get("ready") or container.get("restartCount", 0) < CRASHES:
            continue
        name, advice = container["name"], _explain_exit(container, last)
        log = f"kubectl logs -l {names.LABEL_REVISION}={revision} -c {name} --previous"
        return Finding(
            Reason.CRASH_LOOPING,
            f"Container {name} of {revision} ends again and again ({_how(last)}).{advice} See: {log}",
        )
    return None


def find_failing_pods(track: Track, revision: str) -> Finding | None:
    """Return the finding for a revision of which the kubelet evicts or refuses one pod after the other."""
    failures = _list_failures(track, revision)
    if not any(pod.created_at >= failures[0][0] for _, pod in failures[1:]):
        return None  # there is one failure at most, or they failed together, as those of a lost node do
    status = failures[-1][1].status
    reason, message = status["reason"] or "Failed", status["message"].rstrip(". ")
    advice = _ADVICE.get(reason, f"See: kubectl describe pods -l {names.LABEL_REVISION}={revision}")
    how = f"{reason}: {message}" if message else reason
    return Finding(
        Reason.PODS_FAIL, f"Pods of {revision} fail on their nodes, and so do their replacements. {how}. {advice}"
    )


def failing_seconds(track: Track, revision: str) -> float | None:
    """Return for how many more seconds the failed pods of a revision count; None: they do not."""
    failures = _list_failures(track, revision)
    return failures[-1][0] + FAILED_SECONDS - track.now if failures else None


def _list_failures(track: Track, revision: str) -> list[tuple[float, Pod]]:
    """Return the failed pods of a revision that count, by the time of their failure, the last one last."""
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
    """Return the finding for a revision without ready pods, and how its containers ended."""
    ends = (
        (one["name"], one.get(when, {}).get("terminated")) for one in _containers(track, revision) for when in _ENDS
    )
    how = [f" Container {name} ended ({_how(end)})." for name, end in ends if end]
    return Finding(Reason.NOT_ANSWERING, f"No pod of {revision} is ready.{''.join(how[:1])}")


CHECKS: Final[tuple[Check, ...]] = (
    pods_refused,
    unschedulable,
    container_waits,
    not_started,
    model_failed,
    crash_loop,
    find_failing_pods,
)


def _explain_exit(container: Mapping[str, Any], ended: Mapping[str, Any]) -> str:
    """Return what to do about an end whose cause its exit code tells; empty where the log has to."""
    bus_error = container["name"] == names.TRITON_CONTAINER and ended.get("exitCode") == BUS_ERROR
    return f" The exit code is that of a bus error. {SHARED_MEMORY}" if bus_error else ""


def _how(ended: Mapping[str, Any]) -> str:
    return f"{ended.get('reason', 'Error')}, exit code {ended.get('exitCode', '?')}"


def _containers(track: Track, revision: str) -> Iterator[Mapping[str, Any]]:
    for pod in track.pods_of(revision):
        yield from pod.status["containers"]


def _sentence(model: ModelReport) -> str:
    return f"Model {model.name}: {model.message}"
