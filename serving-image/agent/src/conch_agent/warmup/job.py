"""`conch-warmup`: warms the pods of a revision through its Service, before it gets its first request of a user.

Its result is the container's termination message, a WarmupReport as JSON, so it needs no API credentials.
Exit status: 0 warmed (stable or not), 1 the model refuses or answers wrongly, 2 nothing answered: worth a retry.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from conch_agent.fetch import Fetch
from conch_agent.object_versions import list_files
from conch_agent.reasons import Failure, Reason
from conch_agent.settings import Settings
from conch_agent.sources import open_source
from conch_agent.sources.base import Listing
from conch_agent.triton import Refused, TritonGone
from conch_agent.warmup.course import Course
from conch_agent.warmup.infer import Endpoint
from conch_agent.warmup.plan import plan
from conch_agent.warmup.rounds import connections
from conch_contract import ModelManifest, ModelSource, ParityReport, WarmupReport, names
from conch_contract.warmup import WARMED_UP

_LONGEST: Final = 4000  # bytes; the kubelet keeps 4096 of a termination message


@dataclass(frozen=True)
class Job:
    """Where the revision answers, on how many pods, and where this container finds and leaves things."""

    host: str
    port: int
    pods: int
    settings: Settings
    scratch: Path
    message: Path

    @property
    def root(self) -> str:
        """The root of Triton's HTTP API behind the Service."""
        return f"http://{self.host}:{self.port}"


def main() -> None:
    """Warm, tell, and end."""
    job = from_arguments()
    report = asyncio.run(warm(job))
    write(report, job.message)
    sys.stdout.write(line(report) + "\n")
    sys.exit(status(report))


async def warm(job: Job) -> WarmupReport:
    """Warm every model of the manifest that asks for it, one after the other; the first failure ends it."""
    report = WarmupReport(reason=WARMED_UP, stable=True, message="The manifest asks for no warm-up.")
    try:
        manifest = ModelManifest.model_validate_json(job.settings.manifest.read_bytes())
        for source in [source for source in manifest.models if source.warmup]:
            report = await _warm_model(job, source)
            if report.failed:
                break
    except Failure as failure:
        return WarmupReport(reason=failure.reason, message=failure.message)
    except (OSError, ValidationError) as error:
        return WarmupReport(reason=Reason.INVALID_MANIFEST, message=f"{job.settings.manifest} cannot be read: {error}")
    except Exception as error:  # noqa: BLE001  a defect, too, must be told in the termination message
        return WarmupReport(reason=Reason.INTERNAL, message=f"{type(error).__name__}: {error}")
    return report


def write(report: WarmupReport | ParityReport, file: Path) -> None:
    """Write the termination message; a message that is too long for the kubelet loses its end."""
    text, kept = report.to_json(), report.message
    while kept and (over := len(text.encode()) - _LONGEST) > 0:
        kept = kept[: -max(1, over // 6)]  # a character is at most six bytes of JSON
        text = report.model_copy(update={"message": kept + "…"}).to_json()
    file.write_text(text)


def line(report: WarmupReport) -> str:
    """Return the report for a person who reads the Job's log."""
    told = f"{report.reason}: " + (f"{report.message} " if report.message else "")
    if not report.requests:
        return told.strip()
    return (
        f"{told}{report.requests} requests, {report.failures} failed, p50 {report.p50_milliseconds:.1f} ms,"
        f" p99 {report.p99_milliseconds:.1f} ms, {report.requests_per_second:.1f} requests/s, {report.seconds:.1f} s"
    )


def status(report: WarmupReport) -> int:
    """Return the exit status."""
    if not report.failed:
        return 0
    return 2 if report.passing else 1


async def _warm_model(job: Job, source: ModelSource) -> WarmupReport:
    assert source.warmup  # noqa: S101  the caller's choice
    deadline = time.monotonic() + source.warmup.timeout_seconds
    files = await fetch_requests(source, job.settings, job.scratch) if source.warmup.path else job.scratch
    try:
        async with Endpoint(job.root, source.name, deadline=deadline) as endpoint:
            versions = [int(version) for version in (await endpoint.metadata())["versions"]]
            calls, at_once = await plan(source, versions, endpoint, job.settings, files)
    except TritonGone as gone:
        message = f"No server answers at {job.root}: {gone}. Are the revision's pods ready, and is the port open?"
        return WarmupReport(reason=Reason.WARMUP_UNREACHABLE, message=message)
    except Refused as refusal:
        message = f"The revision's pods do not serve {source.name}: {refusal}"
        return WarmupReport(reason=Reason.WARMUP_FAILED, message=message)
    endpoint = Endpoint(job.root, source.name, at_once, deadline)
    course = Course(source.warmup, source.name, endpoint, at_least=connections(job.pods), at_once=at_once)
    return await course.run(calls, max(1.0, deadline - time.monotonic()))


async def fetch_requests(source: ModelSource, settings: Settings, scratch: Path) -> Path:
    """Fetch the folder of requests, and only that, from the model's storage."""
    assert source.warmup  # noqa: S101  the caller's choice
    origin = open_source(source.storage_uri, settings)
    listing, _ = await list_files(origin, source.object_versions)
    items = tuple(item for item in listing.items if item.path.is_relative_to(source.warmup.path))
    if not items:
        return scratch  # nothing there: the plan says so
    return (await Fetch(origin, scratch / source.name).run(Listing(items))).files


def from_arguments(arguments: Sequence[str] | None = None) -> Job:
    """Read the command line; in a Job's pod it names the host and the pods."""
    own = Settings()
    parser = argparse.ArgumentParser(prog="conch-warmup", description=__doc__)
    parser.add_argument("--host", required=True, help="the revision's Service")
    parser.add_argument("--port", type=int, default=names.HTTP_PORT, help="its HTTP port")
    parser.add_argument("--pods", type=int, default=1, help="how many pods to reach")
    parser.add_argument("--root", type=Path, default=own.root, help="parent of manifest, warmup, storage, ...")
    parser.add_argument("--scratch", type=Path, default=Path("/tmp/conch-warmup"), help="where files are fetched to")  # noqa: S108  an emptyDir
    parser.add_argument("--message", type=Path, default=Path("/dev/termination-log"), help="where the report goes")
    given: Any = parser.parse_args(arguments)
    return Job(given.host, given.port, given.pods, replace(own, root=given.root), given.scratch, given.message)
