"""Names that only the operator uses. Those that the serving image shares are in `conch_contract.names`."""

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
# KServe has the short name isvc too; this one is unique to Conch.
OWN_SHORT_NAME: Final = "cisvc"
CATEGORY: Final = "conch"
CRD_NAME: Final = f"{PLURAL}.{GROUP}"

# Server-side apply: one fixed manager, so that fields never change hands between operator versions.
FIELD_MANAGER: Final = "conch"

# The recommended label: dashboards and cost tools group by it.
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
LABEL_NAME: Final = "app.kubernetes.io/name"
LABEL_INSTANCE: Final = "app.kubernetes.io/instance"
# Kubernetes' own, on an EndpointSlice: its Service.
LABEL_SERVICE_NAME: Final = "kubernetes.io/service-name"

# The paths of the HTTPRoute: the inference endpoints of both protocols. Triton's other endpoints stay internal.
MODELS_PATH: Final = "/v2/models"
HTTP_PATHS: Final = (MODELS_PATH, "/v2/health")
GRPC_PATHS: Final = ("/inference.GRPCInferenceService",)

# On children: the hash of the applied manifest, so that an unchanged child is not written.
ANNOTATION_APPLIED_HASH: Final = f"{GROUP}/applied-hash"
# On a ControllerRevision: the generation of the service that made it.
ANNOTATION_GENERATION: Final = f"{GROUP}/generation"
# On a service, by users: why it changes. A ControllerRevision keeps the value of the time when it was made,
ANNOTATION_CHANGE_CAUSE: Final = f"{GROUP}/change-cause"
# its author (the field manager of spec.predictor), the digest of the model that it served first, the object versions of
# that model's files in a bucket with versioning, and the digest of the ConfigMap of its first warm-up.
ANNOTATION_AUTHOR: Final = f"{GROUP}/author"
ANNOTATION_CONTENTS: Final = f"{GROUP}/contents"

# On the ControllerRevision of a revision that other pods than its own serve: the workload of these pods.
ANNOTATION_WORKLOAD: Final = f"{GROUP}/workload"

# On a Namespace, by its administrator: the signature policy that its models need. It is the name of a ConfigMap in the
# operator's namespace, which has the label of policies of that kind, and as an annotation the path of the signatures.
LABEL_SIGNATURE_POLICY: Final = f"{GROUP}/signature-policy"
# On the Lease of an installation: what it serves.
ANNOTATION_NAMESPACES: Final = f"{GROUP}/watch-namespaces"
ANNOTATION_LABEL_SELECTOR: Final = f"{GROUP}/watch-label-selector"
LABEL_POLICY: Final = f"{GROUP}/policy"
SIGNATURE_POLICY: Final = "signature"
ANNOTATION_SIGNATURE_PATH: Final = f"{GROUP}/signature-path"

# On a serving pod: the revision that it has to serve, since when, and where it gets requests while it loads that one,
# the revision that it serves until then. A new pod has none of them, and serves the revision of the others.
ANNOTATION_ASSIGNED: Final = f"{GROUP}/assigned"
ANNOTATION_ASSIGNED_AT: Final = f"{GROUP}/assigned-at"
ANNOTATION_SERVES: Final = f"{GROUP}/serves"
# On a serving pod: Triton's name of the model that clients send requests to, one of several in an ensemble.
ANNOTATION_MODEL: Final = f"{GROUP}/model"

# On the root Service: the revision that carries the service; its selector may be wider than that.
ANNOTATION_STABLE: Final = f"{GROUP}/stable"
# On an HTTPRoute with inactive rules (see traffic/slots.py): its generation, and the time since when every gateway has
# accepted it.
ANNOTATION_ACCEPTED: Final = f"{GROUP}/accepted"
# On a service, by users: a request to its rollout (see decide/rollout/request.py).
ANNOTATION_REQUEST: Final = f"{GROUP}/rollout"

# The suffix of children is `-<variant>-<hash>`; with 40, names fit into a label value and a DNS label (63).
MAX_NAME_LENGTH: Final = 40
# Characters that the names of a service and its variant may have beyond MAX_NAME_LENGTH: the name of a Job,
# <service>-<variant>-<hash>-warmup, has at most 63.
VARIANT_ALLOWANCE: Final = 4


class ConditionType(StrEnum):
    """Types of conditions. Reconciling and Stalled (kstatus) are present only while true."""

    READY = "Ready"
    SERVING = "Serving"
    ROLLOUT_COMPLETE = "RolloutComplete"
    AUTOSCALING = "Autoscaling"
    TRAFFIC_PROGRAMMED = "TrafficProgrammed"
    SOURCE_UP_TO_DATE = "SourceUpToDate"  # present where sources are watched
    SIGNATURE_POLICY = "SignaturePolicy"  # present where the namespace has one
    RECONCILING = "Reconciling"
    STALLED = "Stalled"


class Phase(StrEnum):
    """Phase of a revision: the state of the models in its pods, or ScaledToZero if it has no pods by request."""

    PENDING = "Pending"
    FETCHING = "Fetching"
    LOADING = "Loading"
    WARMING = "Warming"
    READY = "Ready"
    FAILED = "Failed"
    SCALED_TO_ZERO = "ScaledToZero"


class RolloutPhase(StrEnum):
    """Phase of a rollout. A rollout that succeeded has no status."""

    PROGRESSING = "Progressing"
    PAUSED = "Paused"
    FAILED = "Failed"


class StrategyName(StrEnum):
    """How the candidate of a rollout takes over from the stable revision."""

    PROGRESSIVE = "Progressive"  # beside it, by the steps of the spec
    REPLACE = "Replace"  # at once, since the stable revision has never had a ready pod
    RECREATE = "Recreate"  # after its pods have ended
    SWAP = "Swap"  # in its pods, one after another, which leave their Services meanwhile
    SWAP_IN_PLACE = "SwapInPlace"  # in its one pod, which goes on to serve


class Admission(StrEnum):
    """Whether GPUs are free for the pods of a rollout beside those of the stable revision. Decided once a rollout.

    Pending is also one that waits for a signature policy that can be read.
    """

    PENDING = "Pending"  # the candidate has no pods yet
    ADMITTED = "Admitted"
    INSUFFICIENT = "Insufficient"  # the rollout has the strategy Recreate
    UNKNOWN = "Unknown"  # the operator may not read nodes
    OVERRIDDEN = "Overridden"  # a user promoted the candidate without it
