"""The types and names that the operator and the serving image share.

The operator writes a `ModelManifest` into a ConfigMap; the agent in the pod reads it.
The agent serves an `AgentReport`; the operator reads it.
The pod of a revision Job leaves a `JobReport` as its termination message; the operator reads it.
`names` has the paths, ports and labels that both use. `schemes`, `formats` and `revision_jobs` are the tables of the
schemes of storageUri, of the model formats and of the revision Jobs.
pydantic is the only dependency, because both images contain this package.
"""

from conch_contract import names
from conch_contract.decryption import Decryption
from conch_contract.job_report import JobReport
from conch_contract.manifest import (
    Accelerator,
    DirectStrategy,
    DynamicBatching,
    InstanceGroup,
    Mirror,
    ModelManifest,
    ModelSource,
    OldestStrategy,
    Optimization,
    PipelineStep,
    Priorities,
    QueuePolicy,
    RateLimiter,
    RateLimiterResource,
    SequenceBatching,
    TritonConfig,
    VersionPolicy,
    WatchedSource,
)
from conch_contract.parity import Disagreement, Parity, ParityReport
from conch_contract.report import (
    AgentReport,
    ConfigOrigin,
    ConfigValue,
    ModelReport,
    ModelState,
    ModelWarning,
    SourceReport,
    VersionReport,
)
from conch_contract.verification import Signature, SignaturePolicy, Verification
from conch_contract.warmup import Warmup, WarmupReport, WarmupRequest

__all__ = [
    "Accelerator",
    "AgentReport",
    "ConfigOrigin",
    "ConfigValue",
    "Decryption",
    "DirectStrategy",
    "Disagreement",
    "DynamicBatching",
    "InstanceGroup",
    "JobReport",
    "Mirror",
    "ModelManifest",
    "ModelReport",
    "ModelSource",
    "ModelState",
    "ModelWarning",
    "OldestStrategy",
    "Optimization",
    "Parity",
    "ParityReport",
    "PipelineStep",
    "Priorities",
    "QueuePolicy",
    "RateLimiter",
    "RateLimiterResource",
    "SequenceBatching",
    "Signature",
    "SignaturePolicy",
    "SourceReport",
    "TritonConfig",
    "Verification",
    "VersionPolicy",
    "VersionReport",
    "Warmup",
    "WarmupReport",
    "WarmupRequest",
    "WatchedSource",
    "names",
]
