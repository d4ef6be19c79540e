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
# KServe has the short name isvc too; this one is Conch's alone.
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

# The paths of the HTTPRoute. Of both protocols only what answers inference: Triton's other endpoints are not for the
# outside.
MODELS_PATH: Final = "/v2/models"
HTTP_PATHS: Final = (MODELS_PATH, "/v2/health")
GRPC_PATHS: Final = ("/inference.GRPCInferenceService",)

# On children: the hash of what was applied, so that an unchanged snapshot costs no write.
ANNOTATION_APPLIED_HASH: Final = f"{GROUP}/applied-hash"
# On a ControllerRevision: the generation of the service that made it.
ANNOTATION_GENERATION: Final = f"{GROUP}/generation"
# On a service, by people: why it changes. A ControllerRevision keeps what the service said when it was made,
ANNOTATION_CHANGE_CAUSE: Final = f"{GROUP}/change-cause"
# who made it (the field manager of spec.predictor), the digest of the model that it served first, in which versions a
# bucket with versioning has the files of that model, and the digest of the ConfigMap that it was first warmed with.
ANNOTATION_AUTHOR: Final = f"{GROUP}/author"
ANNOTATION_DIGEST: Final = f"{GROUP}/digest"
ANNOTATION_OBJECT_VERSIONS: Final = f"{GROUP}/object-versions"
ANNOTATION_WARMUP_DIGEST: Final = f"{GROUP}/warmup-digest"

# On a serving pod: Triton's name of the model that clients ask for, one among others in an ensemble.
ANNOTATION_MODEL: Final = f"{GROUP}/model"

# On the root Service: the revision that carries the service; its selector may be wider than that.
ANNOTATION_STABLE: Final = f"{GROUP}/stable"
# On an HTTPRoute with inactive rules (see traffic/slots.py): its generation, and the time since when every gateway has
# accepted it.
ANNOTATION_ACCEPTED: Final = f"{GROUP}/accepted"
# On a service, by people: what its rollout shall do (see decide/request.py).
ANNOTATION_REQUEST: Final = f"{GROUP}/rollout"

# The suffix of children is `-<variant>-<hash>`; 40 leaves room for it in a label value and a DNS label (63).
MAX_NAME_LENGTH: Final = 40
# A Job's name is <service>-<variant>-<hash>-warmup: 63 in all, and what a variant adds to the shortest names.
VARIANT_ROOM: Final = 4


class ConditionType(StrEnum):
    """Positive conditions, and kstatus's two that are present only while true."""

    READY = "Ready"
    SERVING = "Serving"
    ROLLOUT_COMPLETE = "RolloutComplete"
    AUTOSCALING = "Autoscaling"
    TRAFFIC_PROGRAMMED = "TrafficProgrammed"
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


class Admission(StrEnum):
    """Whether GPUs are free for the pods of a rollout beside those of the stable revision. Decided once a rollout."""

    PENDING = "Pending"  # the candidate has no pods yet
    ADMITTED = "Admitted"
    INSUFFICIENT = "Insufficient"  # the rollout has the strategy Recreate
    UNKNOWN = "Unknown"  # the operator may not read nodes
    OVERRIDDEN = "Overridden"  # a user promoted the candidate without it
