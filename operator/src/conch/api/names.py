"""Names that only the operator uses. What the serving image shares stands in `conch_contract.names`."""

from enum import StrEnum
from typing import Final

from conch_contract import names

GROUP: Final = names.GROUP
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "InferenceService"
LIST_KIND: Final = "InferenceServiceList"
SINGULAR: Final = "inferenceservice"
PLURAL: Final = "inferenceservices"
SHORT_NAME: Final = "isvc"
CATEGORY: Final = "conch"
CRD_NAME: Final = f"{PLURAL}.{GROUP}"

# Server-side apply: one fixed manager, so that fields never change hands between operator versions.
FIELD_MANAGER: Final = "conch"

# The recommended label: dashboards and cost tools group by it.
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
LABEL_NAME: Final = "app.kubernetes.io/name"
LABEL_INSTANCE: Final = "app.kubernetes.io/instance"

# On a pod: the hash of its manifest. Touching it makes the kubelet refresh the ConfigMap volume at once.
ANNOTATION_MANIFEST_HASH: Final = f"{GROUP}/manifest-hash"
# On children: the hash of what was applied, so that an unchanged world costs no write.
ANNOTATION_APPLIED_HASH: Final = f"{GROUP}/applied-hash"
# On a ControllerRevision: the generation of the service that made it.
ANNOTATION_GENERATION: Final = f"{GROUP}/generation"

# The suffix of children is `-<variant>-<hash>`; 40 leaves room for it in a label value and a DNS label (63).
MAX_NAME_LENGTH: Final = 40


class ConditionType(StrEnum):
    """Positive conditions, and kstatus's two that are present only while true."""

    READY = "Ready"
    SERVING = "Serving"
    ROLLOUT_COMPLETE = "RolloutComplete"
    AUTOSCALING = "Autoscaling"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"


class Reason(StrEnum):
    """The one-word reason of a condition or an event."""

    ACCEPTED = "Accepted"
    SERVED = "Served"
    PENDING = "Pending"
    PROGRESSING = "Progressing"
    FETCHING = "Fetching"
    LOADING = "Loading"
    MODEL_FAILED = "ModelFailed"
    PODS_FAILED = "PodsFailed"
    UNSCHEDULABLE = "Unschedulable"
    NO_READY_PODS = "NoReadyPods"
    STABLE_SERVES = "StableServes"
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    COMPLETE = "Complete"
    SCALING = "Scaling"
    SCALED = "Scaled"
    NO_METRICS = "NoMetrics"
    WRITE_REFUSED = "WriteRefused"
    SPEC_UNREADABLE = "SpecUnreadable"
    CREATED = "Created"
    REPLACED = "Replaced"
    DELETED = "Deleted"


class Phase(StrEnum):
    """Where a revision stands: the agent's model states, and the end of its life."""

    PENDING = "Pending"
    FETCHING = "Fetching"
    LOADING = "Loading"
    READY = "Ready"
    FAILED = "Failed"
    DRAINING = "Draining"
    RETIRED = "Retired"
