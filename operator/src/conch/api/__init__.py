"""The InferenceService: its types, its names, and the CRD that is generated from them.

Values only; it imports pydantic, the contract and the standard library.
"""

from conch.api import names
from conch.api._base import ConfigMapRef, Duration, duration_seconds
from conch.api.autoscaling import Autoscaling, Behavior, Metric
from conch.api.model import Model, ModelFormat, SecretRef, Storage
from conch.api.names import Admission, ConditionType, Phase, RolloutPhase
from conch.api.optimization import Accelerator, Optimization
from conch.api.pod import Pod, Resources, Variable, Volume, VolumeMount
from conch.api.quantity import Quantity
from conch.api.rate_limiter import RateLimiter
from conch.api.rollout import MANUAL, Rollout, Step, StepInForce
from conch.api.sequences import DirectStrategy, OldestStrategy, SequenceBatching
from conch.api.service import InferenceService, Metadata
from conch.api.spec import Predictor, Spec
from conch.api.status import (
    Condition,
    ConfigValue,
    ModelCounts,
    ModelStatus,
    ModelWarning,
    ReplicaStatus,
    RevisionStatus,
    RolloutStatus,
    ServedModel,
    Status,
    VariantStatus,
)
from conch.api.traffic import GatewayRef, Traffic
from conch.api.triton import (
    AllVersions,
    DynamicBatching,
    InstanceGroup,
    LatestVersions,
    Priorities,
    QueuePolicy,
    SpecificVersions,
    Triton,
    VersionPolicy,
)
from conch.api.variants import Header, Match, Variant, VariantModel, VariantPredictor
from conch.api.verification import Signature, Verification
from conch.api.warmup import (
    InputTensor,
    ModelWarmup,
    OutputTensor,
    Stable,
    Warmup,
    WarmupRequest,
    WarmupStatus,
)

__all__ = [
    "MANUAL",
    "Accelerator",
    "Admission",
    "AllVersions",
    "Autoscaling",
    "Behavior",
    "Condition",
    "ConditionType",
    "ConfigMapRef",
    "ConfigValue",
    "DirectStrategy",
    "Duration",
    "DynamicBatching",
    "GatewayRef",
    "Header",
    "InferenceService",
    "InputTensor",
    "InstanceGroup",
    "LatestVersions",
    "Match",
    "Metadata",
    "Metric",
    "Model",
    "ModelCounts",
    "ModelFormat",
    "ModelStatus",
    "ModelWarmup",
    "ModelWarning",
    "OldestStrategy",
    "Optimization",
    "OutputTensor",
    "Phase",
    "Pod",
    "Predictor",
    "Priorities",
    "Quantity",
    "QueuePolicy",
    "RateLimiter",
    "ReplicaStatus",
    "Resources",
    "RevisionStatus",
    "Rollout",
    "RolloutPhase",
    "RolloutStatus",
    "SecretRef",
    "SequenceBatching",
    "ServedModel",
    "Signature",
    "Spec",
    "SpecificVersions",
    "Stable",
    "Status",
    "Step",
    "StepInForce",
    "Storage",
    "Traffic",
    "Triton",
    "Variable",
    "Variant",
    "VariantModel",
    "VariantPredictor",
    "VariantStatus",
    "Verification",
    "VersionPolicy",
    "Volume",
    "VolumeMount",
    "Warmup",
    "WarmupRequest",
    "WarmupStatus",
    "duration_seconds",
    "names",
]
