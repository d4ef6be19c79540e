"""The types and names that the operator and the serving image share.

The operator writes a `ModelManifest` into a ConfigMap; the agent in the pod reads it.
The agent serves an `AgentReport`; the operator reads it.
`names` has the paths, ports and labels that both use. `schemes` and `formats` are the tables of the schemes of
storageUri and of the model formats.
pydantic is the only dependency, because both images contain this package.
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
