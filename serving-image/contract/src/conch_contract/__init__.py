"""What the operator and the serving image agree on, and nothing else.

The operator writes a `ModelManifest` into a ConfigMap; the agent in the pod reads it.
The agent answers an `AgentReport`; the operator reads it.
Paths, ports and label names that both sides use stand in `names`. The schemes of storageUri and the formats of models
are the tables of `schemes` and `formats`.
No dependency but pydantic may enter: both images carry this package.
"""

from conch_contract import names
from conch_contract.manifest import (
    DynamicBatching,
    InstanceGroup,
    ModelManifest,
    ModelSource,
    TritonConfig,
    VersionPolicy,
)
from conch_contract.parity import Disagreement, Parity, ParityReport
from conch_contract.report import AgentReport, ModelReport, ModelState, ModelWarning, VersionReport
from conch_contract.warmup import Warmup, WarmupReport, WarmupRequest

__all__ = [
    "AgentReport",
    "Disagreement",
    "DynamicBatching",
    "InstanceGroup",
    "ModelManifest",
    "ModelReport",
    "ModelSource",
    "ModelState",
    "ModelWarning",
    "Parity",
    "ParityReport",
    "TritonConfig",
    "VersionPolicy",
    "VersionReport",
    "Warmup",
    "WarmupReport",
    "WarmupRequest",
    "names",
]
