"""The reasons of failures and warnings, and the exception that has a reason and a message.

`docs/serving-image.md` lists the failures that a user can cause or cure. A `Failure` is raised where its cause is known
and caught only where it is reported.
"""

from enum import Enum, StrEnum
from typing import Self

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


class Retry(Enum):
    """When the agent tries again after a failure; `retries` has the delays."""

    SOON = "soon"  # the next attempt reads a listing, a Secret or a ConfigMap first
    LATER = "later"  # it loads the model, sends requests to Triton, reads all files, or downloads packages
    AFTER_OTHERS = "after others"  # the model ends Triton: the others are served for a while first
    NONE = "none"  # the model waits for others, or the failure is that of the pod or of a Job


class Reason(StrEnum):
    """The `reason` of a ModelReport, and when the agent tries again what has failed for it."""

    retry: Retry

    def __new__(cls, value: str, retry: Retry) -> Self:
        """Return a reason; one without its retry is an error of the import.

        Args:
            value: The reason in reports.
            retry: When the agent tries again.
        """
        member = str.__new__(cls, value)
        member._value_ = value
        member.retry = retry
        return member

    BUCKET_NOT_FOUND = "BucketNotFound", Retry.SOON
    ACCESS_DENIED = "AccessDenied", Retry.SOON
    SECRET_MISSING = "SecretMissing", Retry.SOON
    INVALID_SECRET = "InvalidSecret", Retry.SOON
    EMPTY = "Empty", Retry.SOON
    NOT_FOUND = "NotFound", Retry.SOON
    UNREACHABLE = "Unreachable", Retry.SOON
    INSECURE_ENDPOINT = "InsecureEndpoint", Retry.SOON
    DISK_FULL = "DiskFull", Retry.SOON
    TOO_LARGE = "TooLarge", Retry.SOON
    UNSAFE_PATH = "UnsafePath", Retry.SOON
    CHANGED = "SourceChanged", Retry.SOON
    CONTENT_CHANGED = "ContentChanged", Retry.LATER
    DIGEST_MISMATCH = "DigestMismatch", Retry.LATER
    SIGNATURE_MISSING = "SignatureMissing", Retry.SOON
    INVALID_SIGNATURE = "InvalidSignature", Retry.LATER
    NOT_SIGNED = "NotSigned", Retry.LATER
    ENCRYPTED = "Encrypted", Retry.SOON
    NOT_ENCRYPTED = "NotEncrypted", Retry.SOON
    DECRYPTION_FAILED = "DecryptionFailed", Retry.LATER
    KEY_MISSING = "KeyMissing", Retry.SOON
    INVALID_KEY = "InvalidKey", Retry.SOON
    POLICY_UNREADABLE = "SignaturePolicyUnreadable", Retry.SOON
    UNSUPPORTED = "Unsupported", Retry.SOON
    FETCH_FAILED = "FetchFailed", Retry.SOON
    NOT_A_MODEL = "NotAModel", Retry.SOON
    SEVERAL_MODELS = "SeveralModels", Retry.SOON
    ENTRY_MISSING = "EntryMissing", Retry.SOON
    INVALID_CONFIG = "InvalidConfig", Retry.SOON
    ENVIRONMENT_FAILED = "EnvironmentFailed", Retry.LATER
    INVALID_PIPELINE = "InvalidPipeline", Retry.SOON
    CONFIG_CONFLICT = "ConfigConflict", Retry.SOON
    INVALID_MANIFEST = "InvalidManifest", Retry.NONE
    MANIFEST_MISSING = "ManifestMissing", Retry.NONE
    MODEL_MISSING = "ModelMissing", Retry.LATER
    MODEL_CYCLE = "ModelCycle", Retry.LATER
    WAITS_FOR_MODELS = "WaitsForModels", Retry.NONE
    WAITS_FOR_CLIENTS = "WaitsForClients", Retry.NONE
    WAITS_FOR_LOAD = "WaitsForLoad", Retry.NONE
    LOAD_FAILED = "LoadFailed", Retry.LATER
    UNLOAD_FAILED = "UnloadFailed", Retry.NONE
    LOAD_CRASHED = LOAD_CRASHED, Retry.AFTER_OTHERS
    REQUESTS_CRASHED = REQUESTS_CRASHED, Retry.AFTER_OTHERS
    WARMUP_FAILED = "WarmupFailed", Retry.LATER
    WARMUP_WRONG = "WarmupAnswersWrong", Retry.LATER
    WARMUP_MISSING = "WarmupMissing", Retry.LATER
    WARMUP_TIMED_OUT = "WarmupTimedOut", Retry.LATER
    WARMUP_UNREACHABLE = "WarmupUnreachable", Retry.LATER
    PARITY_TOO_FEW = "ParityTooFewRequests", Retry.NONE
    CONTROL_OPEN = "ControlOpen", Retry.NONE
    TRITON_UNREACHABLE = "TritonUnreachable", Retry.NONE
    INTERNAL = "InternalError", Retry.SOON


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
