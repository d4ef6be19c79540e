"""The InferenceService: its types, its names, and the CRD that is generated from them.

Nothing but values may enter: pydantic, the contract and the standard library.
"""

from conch.api import names
from conch.api._base import Duration, Passed, Quantity, duration_seconds
from conch.api.autoscaling import Autoscaling, Behavior, Metric
from conch.api.model import Format, Model, SecretRef, Storage
from conch.api.names import ConditionType, Phase
from conch.api.pod import Pod, Resources, Variable, Volume, VolumeMount
from conch.api.service import InferenceService, Metadata
from conch.api.spec import Predictor, Rollout, Spec
from conch.api.status import Condition, ModelStatus, ReplicaStatus, RevisionStatus, ServedModel, Status
from conch.api.triton import (
    AllVersions,
    DynamicBatching,
    InstanceGroup,
    LatestVersions,
    SpecificVersions,
    Triton,
    VersionPolicy,
)

__all__ = [
    "AllVersions",
    "Autoscaling",
    "Behavior",
    "Condition",
    "ConditionType",
    "Duration",
    "DynamicBatching",
    "Format",
    "InferenceService",
    "InstanceGroup",
    "LatestVersions",
    "Metadata",
    "Metric",
    "Model",
    "ModelStatus",
    "Passed",
    "Phase",
    "Pod",
    "Predictor",
    "Quantity",
    "ReplicaStatus",
    "Resources",
    "RevisionStatus",
    "Rollout",
    "SecretRef",
    "ServedModel",
    "Spec",
    "SpecificVersions",
    "Status",
    "Storage",
    "Triton",
    "Variable",
    "VersionPolicy",
    "Volume",
    "VolumeMount",
    "duration_seconds",
    "names",
]
