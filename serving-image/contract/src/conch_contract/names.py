"""The paths, ports, labels and file names that operator and serving image share."""

from typing import Final

GROUP: Final = "conch.dev"

# Labels of pods and of all children.
LABEL_SERVICE: Final = "conch.dev/service"
LABEL_REVISION: Final = "conch.dev/revision"
LABEL_WORKLOAD: Final = "conch.dev/workload"  # of pods whose revision can change
LABEL_VARIANT: Final = "conch.dev/variant"  # absent: of the predictor itself

# Containers of a serving pod.
AGENT_CONTAINER: Final = "agent"
TRITON_CONTAINER: Final = "triton"

# Ports. Triton has its default ports, which clients and dashboards expect.
HTTP_PORT: Final = 8000
GRPC_PORT: Final = 8001
METRICS_PORT: Final = 8002
AGENT_PORT: Final = 8090

# The agent's endpoints on AGENT_PORT.
STATUS_PATH: Final = "/status"  # an AgentReport, always 200
READY_PATH: Final = "/ready"  # 200 when all desired versions are READY in Triton, else 503 with the reason
LIVE_PATH: Final = "/live"  # 200 while the agent's event loop runs
METRICS_PATH: Final = "/metrics"  # for Prometheus
PIECES_PATH: Final = "/pieces"  # for the agents of other pods with `predictor.cache.peers`

# Folders of the pod, which are volumes: the root file system is read-only.
MANIFEST_DIR: Final = "/conch/manifest"  # the workload's ConfigMap, and the revision that the pod has to serve
MANIFEST_FILE: Final = "manifest.json"  # of a revision without a file of its own, <revision>.json
REVISION_FILE: Final = "revision"  # that is assigned to the pod; empty or absent: that of all pods
POLICY_FILE: Final = "policy.json"  # the SignaturePolicy of the namespace; absent: it has none
STORAGE_SECRET_DIR: Final = "/conch/storage"  # noqa: S105  the Secret of storage.secretRef: one file a key
STORAGE_SECRETS_DIR: Final = "/conch/storage-secrets"
WARMUP_DIR: Final = "/conch/warmup"  # the ConfigMap of warmup.configMapRef is mounted at WARMUP_DIR/name
TRUST_DIR: Final = "/conch/trust"  # the ConfigMap of storage.verify.signature is mounted at TRUST_DIR/name
DECRYPTION_DIR: Final = "/conch/decryption"  # the Secret of storage.decrypt is mounted at DECRYPTION_DIR/name
PVC_DIR: Final = "/conch/pvc"  # pvc://claim/path is mounted read-only at PVC_DIR/claim
MODELS_DIR: Final = "/conch/models"  # emptyDir, of which Triton sees REPOSITORY_DIR
REPOSITORY_DIR: Final = "/conch/models/repository"  # --model-repository
DOWNLOAD_DIR: Final = "/conch/models/downloads"  # same file system, so that a rename is atomic
DECRYPTED_DIR: Final = "/conch/models/decrypted"  # same file system; it ends with the pod, as the cache does not
CACHE_DIR: Final = "/conch/cache"  # the claim of predictor.cache: the agent writes, Triton reads
CONTROL_DIR: Final = "/conch/control"  # memory emptyDir: the agent writes, Triton reads
CONTROL_KEY_FILE: Final = "key"  # the pod's random control key, which Triton's control endpoints require

# Triton's restricted APIs, and the header that has to hold the control key.
CONTROL_HEADER: Final = "conch-control-key"  # HTTP header; over gRPC: triton-grpc-protocol-<this>
RESTRICTED_APIS: Final = ("model-repository", "shared-memory", "trace", "logging")
