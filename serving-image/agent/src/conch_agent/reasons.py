"""The reasons of failures and warnings, and the exception that has a reason and a message.

`docs/serving-image.md` lists the failures that a user can cause or cure. A `Failure` is raised where its cause is known
and caught only where it is reported.
"""

from enum import StrEnum

from conch_agent.signed_urls import hide_signatures
from conch_contract.report import (
    CALLEE_MISSING,
    CRASH_SUSPECTED,
    LOAD_CRASHED,
    MODEL_NOT_SERVED,
    REQUESTS_CRASHED,
    SEQUENCE_STATE,
    SERVED_FROM_CACHE,
)


class Reason(StrEnum):
    """The `reason` of a ModelReport."""

    BUCKET_NOT_FOUND = "BucketNotFound"
    ACCESS_DENIED = "AccessDenied"
    SECRET_MISSING = "SecretMissing"  # noqa: S105  a reason, not a secret
    INVALID_SECRET = "InvalidSecret"  # noqa: S105  a reason, not a secret
    EMPTY = "Empty"
    NOT_FOUND = "NotFound"
    UNREACHABLE = "Unreachable"
    INSECURE_ENDPOINT = "InsecureEndpoint"
    DISK_FULL = "DiskFull"
    TOO_LARGE = "TooLarge"
    UNSAFE_PATH = "UnsafePath"
    CHANGED = "SourceChanged"
    CONTENT_CHANGED = "ContentChanged"
    DIGEST_MISMATCH = "DigestMismatch"
    SIGNATURE_MISSING = "SignatureMissing"
    INVALID_SIGNATURE = "InvalidSignature"
    NOT_SIGNED = "NotSigned"
    ENCRYPTED = "Encrypted"
    NOT_ENCRYPTED = "NotEncrypted"
    DECRYPTION_FAILED = "DecryptionFailed"
    KEY_MISSING = "KeyMissing"
    INVALID_KEY = "InvalidKey"
    POLICY_UNREADABLE = "SignaturePolicyUnreadable"
    UNSUPPORTED = "Unsupported"
    FETCH_FAILED = "FetchFailed"
    NOT_A_MODEL = "NotAModel"
    SEVERAL_MODELS = "SeveralModels"
    ENTRY_MISSING = "EntryMissing"
    INVALID_CONFIG = "InvalidConfig"
    INVALID_PIPELINE = "InvalidPipeline"
    CONFIG_CONFLICT = "ConfigConflict"
    INVALID_MANIFEST = "InvalidManifest"
    MANIFEST_MISSING = "ManifestMissing"
    MODEL_MISSING = "ModelMissing"
    MODEL_CYCLE = "ModelCycle"
    WAITS_FOR_MODELS = "WaitsForModels"
    WAITS_FOR_CLIENTS = "WaitsForClients"
    WAITS_FOR_LOAD = "WaitsForLoad"
    LOAD_FAILED = "LoadFailed"
    UNLOAD_FAILED = "UnloadFailed"
    LOAD_CRASHED = LOAD_CRASHED
    REQUESTS_CRASHED = REQUESTS_CRASHED
    WARMUP_FAILED = "WarmupFailed"
    WARMUP_WRONG = "WarmupAnswersWrong"
    WARMUP_MISSING = "WarmupMissing"
    WARMUP_TIMED_OUT = "WarmupTimedOut"
    WARMUP_UNREACHABLE = "WarmupUnreachable"
    PARITY_TOO_FEW = "ParityTooFewRequests"
    CONTROL_OPEN = "ControlOpen"
    TRITON_UNREACHABLE = "TritonUnreachable"
    INTERNAL = "InternalError"


class WarningReason(StrEnum):
    """The `reason` of a ModelWarning about a model that does not hold its pod."""

    CONFIG_OVERRIDDEN = "ConfigOverridden"
    MODEL_RENAMED = "ModelRenamed"
    CALLEE_MISSING = CALLEE_MISSING
    CRASH_SUSPECTED = CRASH_SUSPECTED
    SEQUENCE_STATE = SEQUENCE_STATE
    WARMUP_CHANGED = "WarmupChanged"
    MEMORY_HOLDS_ONE = "MemoryHoldsOne"
    RESPONSE_CACHE_OFF = "ResponseCacheOff"
    TRACE_RATE_UNUSED = "TraceRateUnused"
    MODEL_NOT_SERVED = MODEL_NOT_SERVED
    CACHE_UNUSED = "CacheUnused"
    SERVED_FROM_MIRROR = "ServedFromMirror"
    SERVED_FROM_CACHE = SERVED_FROM_CACHE
    SOURCE_CHANGED = "SourceChanged"


class Failure(Exception):  # noqa: N818  a reported state, not a programming error
    """A reason, and a message: what happened, what was expected, what to do.

    Attributes:
        reason: The reason.
        message: The message.
        retry_after: Seconds before which a server refuses a retry; 0: it has not set any.
        is_outage: True if the source does not answer at the moment, and so has refused nothing: it cannot be reached,
            stalls, limits the rate of requests, or has a fault (HTTP 5xx).
    """

    def __init__(
        self, reason: Reason, message: str, retry_after: float = 0.0, *, is_outage: bool | None = None
    ) -> None:
        self.reason = reason
        self.message = hide_signatures(message)  # the storageUri may be a signed URL
        super().__init__(self.message)
        self.retry_after = retry_after
        self.is_outage = reason == Reason.UNREACHABLE if is_outage is None else is_outage

    def __str__(self) -> str:
        """Return reason and message for a log."""
        return f"{self.reason}: {self.message}"


def build_superseded(uri: str) -> Failure:
    """Return the failure of a revision that storage.watch made for content which the store does not have any more.

    Args:
        uri: The storageUri, with which the message begins.
    """
    message = (
        f"{uri} has changed again since the watch read it, and this revision is that of the content before. The"
        " operator makes a revision of the newest content; wait for it."
    )
    return Failure(Reason.CHANGED, message)
