"""The warm-up of a model in a pod, before the pod reports ready."""

from __future__ import annotations

from collections.abc import Sequence

from conch_agent.model_warnings import describe_changed_warmup
from conch_agent.reasons import Failure, Reason
from conch_agent.settings import Settings
from conch_agent.threads import run_in_thread
from conch_contract import ModelSource, Warmup, WarmupReport


class PodWarmup:
    """The warm-up of a model in this pod's Triton.

    Attributes:
        is_warm: True if the model is warm, or has no warm-up.
        report: Result of the last warm-up; None: there is none yet.
        digest: Digest of the requests in the ConfigMap of the last warm-up; empty: there is none.
    """

    def __init__(self, settings: Settings, *, is_warm: bool) -> None:
        """Create the warm-up.

        Args:
            settings: The agent's settings.
            is_warm: True if the model is warm, or has no warm-up.
        """
        self.is_warm = is_warm
        self.report: WarmupReport | None = None
        self.digest = ""
        self._settings = settings

    def find_changed_config_map(self, source: ModelSource) -> str:
        """Return the name of the ConfigMap of requests, if the revision's first pod had other requests; else empty.

        Args:
            source: The model in the manifest.
        """
        digest = source.warmup_digest
        has_changed = bool(source.warmup and digest and self.digest and self.digest != digest)
        return source.warmup.config_map if source.warmup and has_changed else ""

    async def run(self, source: ModelSource, warmup: Warmup, versions: Sequence[int]) -> WarmupReport:
        """Warm all versions of the model; return the report, also of a failure.

        Args:
            source: The model in the manifest.
            warmup: Its warm-up.
            versions: The versions that Triton serves.

        Raises:
            TritonUnavailableError: No connection to Triton can be opened.
        """
        # numpy and aiohttp, which a pod without a warm-up does not need
        from conch_agent.warmup.calls import warm_up_pod  # noqa: PLC0415
        from conch_agent.warmup.requests import digest_config_map  # noqa: PLC0415

        self.digest = await run_in_thread(digest_config_map, warmup, self._settings.warmup)
        self.report = await warm_up_pod(source, versions, self._settings)
        self.is_warm = not self.report.has_failed
        return self.report

    def build_failure(self, source: ModelSource) -> Failure | None:
        """Return the failure of the last warm-up; None: it has not failed.

        Args:
            source: The model in the manifest.
        """
        if self.report is None or not self.report.has_failed:
            return None
        changed = describe_changed_warmup(self.find_changed_config_map(source))
        reason = next(reason for reason in Reason if reason == self.report.reason)
        return Failure(reason, " ".join(filter(None, (self.report.message, changed))))
