"""`conch-warmup`: warms the pods of a revision through its Service, before the revision gets requests of users.

Its result is a WarmupReport. A latency that is not stable is no failure.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Final

from conch_agent.job import Job
from conch_agent.reasons import Reason
from conch_agent.triton import TritonError, TritonUnavailableError
from conch_agent.warmup.folder import fetch_requests
from conch_agent.warmup.infer import Endpoint
from conch_agent.warmup.plan import plan_calls
from conch_agent.warmup.rounds import count_connections
from conch_agent.warmup.run import WarmupRun
from conch_contract import ModelManifest, ModelSource, Warmup, WarmupReport, names
from conch_contract.process_end import end_before_finalization
from conch_contract.revision_jobs import WARMUP
from conch_contract.warmup import WARMED_UP


@dataclass(frozen=True, kw_only=True)
class WarmupJob(Job[WarmupReport]):
    """A warm-up of a revision.

    Attributes:
        host: Host of the revision's Service.
        port: HTTP port of the Service.
        pods: Number of pods of the revision.
    """

    row = WARMUP
    host: str
    port: int
    pods: int

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Add the Service and the number of its pods."""
        parser.add_argument("--host", required=True, help="the revision's Service")
        parser.add_argument("--port", type=int, default=names.HTTP_PORT, help="its HTTP port")
        parser.add_argument("--pods", type=int, default=1, help="number of pods to reach")

    @property
    def root(self) -> str:
        """The root of Triton's HTTP API behind the Service."""
        return f"http://{self.host}:{self.port}"

    async def measure(self, manifest: ModelManifest) -> WarmupReport:
        """Warm the entry, if it has a warm-up. Each pod warms the other models, and is not ready before."""
        source = manifest.entry_source
        if source is None or source.warmup is None:
            return WarmupReport(reason=WARMED_UP, stable=True, message="The manifest has no warm-up of the entry.")
        return await self._warm(source, source.warmup)

    @staticmethod
    def format_numbers(report: WarmupReport) -> str:
        """Return requests, failures, latencies, throughput and duration."""
        if not report.requests:
            return ""
        latency = f"p50 {report.p50_milliseconds:.1f} ms, p99 {report.p99_milliseconds:.1f} ms"
        requests = f"{report.requests} requests, {report.failures} failed"
        return f"{requests}, {latency}, {report.requests_per_second:.1f} requests/s, {report.seconds:.1f} s"

    async def _warm(self, source: ModelSource, warmup: Warmup) -> WarmupReport:
        deadline = time.monotonic() + warmup.timeout_seconds
        files = await fetch_requests(source, self.settings, self.scratch)
        try:
            async with Endpoint(self.root, source.name, deadline=deadline) as endpoint:
                versions = [int(version) for version in (await endpoint.read_metadata())["versions"]]
                calls, concurrency = await plan_calls(source, versions, endpoint, self.settings, files)
        except TritonUnavailableError as error:
            message = f"No server answers at {self.root}: {error}. Are the revision's pods ready, and is the port open?"
            return self.fail(Reason.WARMUP_UNREACHABLE, message)
        except TritonError as error:
            return self.fail(Reason.WARMUP_FAILED, f"The revision's pods do not serve {source.name}: {error}")
        endpoint = Endpoint(self.root, source.name, concurrency, deadline)
        rounds = count_connections(self.pods)
        run = WarmupRun(warmup, source.name, endpoint, min_rounds=rounds, concurrency=concurrency)
        return await run.run(calls, max(1.0, deadline - time.monotonic()))


main: Final = end_before_finalization(WarmupJob.main)
