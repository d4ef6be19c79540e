"""The reasons of conditions, rollouts and events: one registry, from which the reference page is generated.

A condition may also have a reason of another component: of an agent's report (`conch_contract`), of the API server's
answer, or of an autoscaler's own condition.
"""

from enum import StrEnum
from typing import Final, Self

SERVING: Final = "The service"
REVISION: Final = "The pods of a revision"
ROLLOUT: Final = "A rollout"
TRAFFIC: Final = "Traffic"
AUTOSCALING: Final = "Autoscaling"
WRITES: Final = "Objects that Conch writes"
EVENTS: Final = "Events only"


class Reason(StrEnum):
    """Why a condition has its status, or a rollout its phase; in events also what happened."""

    topic: str
    meaning: str

    def __new__(cls, value: str, topic: str, meaning: str) -> Self:
        """Make a member.

        Args:
            value: The reason in CamelCase.
            topic: The heading in the reference page.
            meaning: One sentence for users.
        """
        member = str.__new__(cls, value)
        member._value_ = value
        member.topic, member.meaning = topic, meaning
        return member

    SERVED = "Served", SERVING, "The latest spec is served."
    ANSWERING = "Answering", SERVING, "Ready pods get the requests."
    PROGRESSING = "Progressing", SERVING, "The revision comes up, or a rollout is in progress."
    PENDING = "Pending", SERVING, "Nothing has been reported yet."
    NO_READY_PODS = "NoReadyPods", SERVING, "No pod is ready."
    SCALED_TO_ZERO = "ScaledToZero", SERVING, "There is no pod, since no trigger is active."
    WAKING_UP = "WakingUp", SERVING, "A trigger is active, and a pod starts."
    SPEC_UNREADABLE = "SpecUnreadable", SERVING, "The CRD is newer than the operator, which cannot read a field."
    OBJECTS_TOO_LARGE = (
        "ObjectsTooLarge",
        SERVING,
        "The objects with the service as their controller exceed what Conch reads.",
    )
    RECONCILE_FAILED = "ReconcileFailed", SERVING, "An error of Conch stopped three reconciles in a row."

    IMAGE_PULL_FAILED = "ImagePullFailed", REVISION, "The kubelet cannot pull an image."
    CONTAINER_CONFIG_INVALID = "ContainerConfigInvalid", REVISION, "A container cannot be created or started."
    UNSCHEDULABLE = "Unschedulable", REVISION, "No node accepts a pod."
    QUOTA_EXCEEDED = "QuotaExceeded", REVISION, "A ResourceQuota of the namespace does not admit an object."
    PODS_REFUSED = "PodsRefused", REVISION, "An admission policy or a LimitRange rejects the pods."
    VOLUME_NOT_MOUNTED = "VolumeNotMounted", REVISION, "The kubelet cannot mount a volume."
    POD_NOT_STARTED = "PodNotStarted", REVISION, "The kubelet, the container runtime or the network cannot start a pod."
    JOB_PODS_REFUSED = "JobPodsRefused", REVISION, "The pod of a warm-up or parity Job is rejected."
    CRASH_LOOPING = "CrashLooping", REVISION, "A container crashes repeatedly."
    PODS_FAIL = "PodsFail", REVISION, "The kubelet evicts or refuses the pods of the revision one after the other."
    MODEL_FAILED = (
        "ModelFailed",
        REVISION,
        "A model cannot be fetched or loaded; mostly an agent's own reason is shown.",
    )
    CONTENT_CHANGED = "ContentChanged", REVISION, "The files in the store differ from those of the revision."
    UP_TO_DATE = "UpToDate", REVISION, "The revision that serves has the content of the watched sources."
    NEW_CONTENT = "NewContent", REVISION, "A watched source has other content than the revision that serves."
    SOURCE_UNREADABLE = "SourceUnreadable", REVISION, "Pods cannot list a watched source."
    MODELS_SIGNED = "ModelsSigned", REVISION, "All models have the signature that the namespace's policy requires."
    MODELS_NOT_SIGNED = (
        "ModelsNotSigned",
        REVISION,
        "Pods serve models that lack the signature of the namespace's policy, since they loaded them before.",
    )
    SIGNATURE_POLICY_UNREADABLE = (
        "SignaturePolicyUnreadable",
        REVISION,
        "The namespace names a signature policy that does not exist or cannot be read, so that no model is loaded.",
    )
    NOT_ANSWERING = "NotAnswering", REVISION, "No pod of the revision is ready."
    ENDPOINTS_MISSING = "EndpointsMissing", REVISION, "A ready pod is in no EndpointSlice of its revision's Service."
    POD_TEMPLATE_MISSING = (
        "PodTemplateMissing",
        REVISION,
        "The ControllerRevision with the pod template of the revision's Deployment is missing.",
    )
    REPORT_MISSING = "ReportMissing", REVISION, "The agent of a pod whose revision was changed has not reported on it."

    COMPLETE = "Complete", ROLLOUT, "The revision of the latest spec serves."
    COMPLETING = "Completing", ROLLOUT, "All steps are passed, and all requests reach the candidate."
    MINIMUM_REPLICAS_UNAVAILABLE = (
        "MinimumReplicasUnavailable",
        ROLLOUT,
        "The candidate does not have the ready pods for its next weight.",
    )
    STABLE_NOT_READY = "StableNotReady", ROLLOUT, "The stable revision lacks pods, so the weight does not rise."
    WARMING_UP = "WarmingUp", ROLLOUT, "The warm-up Job has not ended."
    COMPARING_ANSWERS = "ComparingAnswers", ROLLOUT, "The parity Job has not ended, or waits for the stable revision."
    WAITS_FOR_TRAFFIC = "WaitsForTraffic", ROLLOUT, "The traffic does not have the weight of the step yet."
    PAUSED = "Paused", ROLLOUT, "The current step is a pause with a duration."
    WAITS_FOR_PROMOTION = "WaitsForPromotion", ROLLOUT, "The current step is a pause that a user ends."
    PAUSED_BY_USER = "PausedByUser", ROLLOUT, "A user paused the rollout."
    PAUSED_ON_FAILURE = "PausedOnFailure", ROLLOUT, "The candidate failed, and onFailure is Pause."
    ANALYSIS = "Analysis", ROLLOUT, "The current step is an analysis that has not ended."
    INCONCLUSIVE = "Inconclusive", ROLLOUT, "A gate has no result, or too few requests for one."
    ANALYSIS_FAILED = "AnalysisFailed", ROLLOUT, "A gate failed."
    PROGRESS_DEADLINE_EXCEEDED = (
        "ProgressDeadlineExceeded",
        ROLLOUT,
        "The candidate made no progress within progressDeadline.",
    )
    ABORTED = "Aborted", ROLLOUT, "A user aborted the rollout."
    INSUFFICIENT_GPU = "InsufficientGPU", ROLLOUT, "The free GPUs do not suffice for the candidate's pods."
    CHECKING_CAPACITY = "CheckingCapacity", ROLLOUT, "The operator is reading the free GPUs."

    PROGRAMMED = "Programmed", TRAFFIC, "Requests are split by the desired weights."
    ENDPOINTS_PENDING = "EndpointsPending", TRAFFIC, "EndpointSlices do not list the pods of the selected revision yet."
    GATEWAY_PENDING = "GatewayPending", TRAFFIC, "A Gateway has not accepted the last change of the route yet."
    GATEWAY_NOT_RESPONDING = "GatewayNotResponding", TRAFFIC, "A Gateway's controller has not written a status."
    GATEWAY_MISSING = "GatewayMissing", TRAFFIC, "A Gateway of the spec does not exist."
    GATEWAY_CLASS_MISSING = "GatewayClassMissing", TRAFFIC, "The class of a Gateway does not exist."
    GATEWAY_API_MISSING = "GatewayApiMissing", TRAFFIC, "The Gateway API is not installed."
    ROUTE_MISSING = "RouteMissing", TRAFFIC, "The HTTPRoute does not exist yet."
    ROUTE_REFUSED = "RouteRefused", TRAFFIC, "A Gateway rejects the HTTPRoute."
    HOSTNAME_TAKEN = "HostnameTaken", TRAFFIC, "Another route gets requests of a hostname."
    TIMEOUT_NOT_SUPPORTED = "TimeoutNotSupported", TRAFFIC, "A Gateway does not enforce traffic.timeout."
    CONSISTENT_HASH_NOT_SUPPORTED = (
        "ConsistentHashNotSupported",
        TRAFFIC,
        "A Gateway does not enforce traffic.consistentHash.",
    )
    ENVOY_GATEWAY_MISSING = "EnvoyGatewayMissing", TRAFFIC, "Envoy Gateway's BackendTrafficPolicy is not installed."
    POLICY_REFUSED = "PolicyRefused", TRAFFIC, "Envoy Gateway rejects the BackendTrafficPolicy."
    MIRROR_NOT_SUPPORTED = "MirrorNotSupported", TRAFFIC, "A Gateway does not support the mirror, so nothing is copied."
    MIRROR_NOT_ARRIVING = "MirrorNotArriving", TRAFFIC, "The mirror is accepted, and no copy arrives."

    TRIGGERS_FOLLOWED = "TriggersFollowed", AUTOSCALING, "KEDA follows its triggers."
    NEEDS_KEDA = "NeedsKeda", AUTOSCALING, "Triggers have no effect without KEDA."
    NOT_FOR_KEDA = "NotForKeda", AUTOSCALING, "KEDA does not take a metric."
    NO_METRICS_API = "NoMetricsApi", AUTOSCALING, "No API serves the metrics of a target."
    KEDA_MISSING = "KedaMissing", AUTOSCALING, "KEDA is not installed."

    NAME_TAKEN = "NameTaken", WRITES, "An object with a name that Conch needs has another owner."
    FIELD_CONTESTED = "FieldContested", WRITES, "Another writer changes a field each time Conch restores it."
    INVALID = "Invalid", WRITES, "The API server rejects an object."
    FORBIDDEN = "Forbidden", WRITES, "The operator lacks a permission."
    KIND_UNKNOWN = "KindUnknown", WRITES, "The cluster does not serve a kind that the operator writes."
    CALL_FAILED = "CallFailed", WRITES, "A write failed three times in a row."

    REVISION_CREATED = "RevisionCreated", EVENTS, "A revision has its first status."
    PROMOTED = "Promoted", EVENTS, "The candidate has become the stable revision."
    WEIGHT_CHANGED = "WeightChanged", EVENTS, "The candidate has a higher weight."
    ROLLED_BACK = "RolledBack", EVENTS, "The candidate failed, and the stable revision gets all requests."
    GATE_SKIPPED = "GateSkipped", EVENTS, "The parity gate has no stable revision to compare with."
    REQUEST_REFUSED = "RequestRefused", EVENTS, "A request in the annotation conch.dev/rollout has no effect."
    SWAP_NOT_POSSIBLE = (
        "SwapNotPossible",
        EVENTS,
        "The stable revision's pods cannot serve the candidate, so pods of its own start.",
    )
    IMAGES_DIFFER = "ImagesDiffer", EVENTS, "Pods of one revision run different images."
    OTHER_INSTALLATION = "OtherInstallation", EVENTS, "Another installation of Conch serves the service."


def build_reference() -> str:
    """Return the reference page of all reasons, in Markdown."""
    lines = [
        "# Reasons",
        "",
        "The reasons of conditions, of `status.rollout.reason` and of events. Generated from `conch.api.reasons`.",
        "",
        "- What to do about those that need a user: [Operations](../operations.md#when-something-is-wrong)",
        "- The reasons of agents: [Serving image](../serving-image.md#reasons)",
    ]
    for topic in dict.fromkeys(reason.topic for reason in Reason):
        lines += ["", f"## {topic}", "", "| reason | meaning |", "|---|---|"]
        lines += [f"| `{reason}` | {reason.meaning} |" for reason in Reason if reason.topic == topic]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(build_reference(), end="")  # noqa: T201  the page
