"""`conch-warmup`: warms the pods of a revision through its Service, before the revision gets requests of users.

Its result is the container's termination message, a WarmupReport as JSON, so it needs no API credentials.
Exit status: 0 warm (stable or not), 1 a failure that no retry cures, 2 a failure that a retry may cure, such as no
answer.
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
from conch_agent.triton import TritonError, TritonUnavailableError
from conch_agent.warmup.infer import Endpoint
from conch_agent.warmup.plan import plan_calls
from conch_agent.warmup.rounds import count_connections
from conch_agent.warmup.run import WarmupRun
from conch_contract import ModelManifest, ModelSource, ParityReport, WarmupReport, names
from conch_contract.warmup import WARMED_UP

_LONGEST: Final = 4000  # bytes; the kubelet keeps 4096 of a termination message


@dataclass(frozen=True)
class Job:
    """The options of the command line.

    Attributes:
        host: Host of the revision's Service.
        port: HTTP port of the Service.
        pods: Number of pods of the revision.
        settings: Paths of the container.
        scratch: Folder of fetched files.
        message: File of the termination message.
    """

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
    """Run the program."""
    job = parse_arguments()
    report = asyncio.run(run_job(job))
    write_report(report, job.message)
    sys.stdout.write(format_report(report) + "\n")
    sys.exit(get_exit_status(report))


async def run_job(job: Job) -> WarmupReport:
    """Warm the models of the manifest that have a warm-up, one after the other, until one fails.

    Args:
        job: The options.

    Returns:
        The report of the last model, also of a failure.
    """
    report = WarmupReport(reason=WARMED_UP, stable=True, message="The manifest has no warm-up.")
    try:
        manifest = ModelManifest.model_validate_json(job.settings.manifest.read_bytes())
        for source in [source for source in manifest.models if source.warmup]:
            report = await _warm_model(job, source)
            if report.has_failed:
                break
    except Failure as failure:
        return WarmupReport(reason=failure.reason, message=failure.message)
    except (OSError, ValidationError) as error:
        return WarmupReport(reason=Reason.INVALID_MANIFEST, message=f"{job.settings.manifest} cannot be read: {error}")
    except Exception as error:  # noqa: BLE001  the termination message has defects of the program, too
        return WarmupReport(reason=Reason.INTERNAL, message=f"{type(error).__name__}: {error}")
    return report


def write_report(report: WarmupReport | ParityReport, file: Path) -> None:
    """Write the termination message. A message that is too long for the kubelet is cut.

    Args:
        report: The report.
        file: The file of the termination message.
    """
    text, message = report.to_json(), report.message
    while message and (excess := len(text.encode()) - _LONGEST) > 0:
        message = message[: -max(1, excess // 6)]  # a character is at most six bytes of JSON
        text = report.model_copy(update={"message": message + "…"}).to_json()
    file.write_text(text)


def format_report(report: WarmupReport) -> str:
    """Return the report as a line of the Job's log.

    Args:
        report: The report.
    """
    text = f"{report.reason}: " + (f"{report.message} " if report.message else "")
    if not report.requests:
        return text.strip()
    return (
        f"{text}{report.requests} requests, {report.failures} failed, p50 {report.p50_milliseconds:.1f} ms,"
        f" p99 {report.p99_milliseconds:.1f} ms, {report.requests_per_second:.1f} requests/s, {report.seconds:.1f} s"
    )


def get_exit_status(report: WarmupReport) -> int:
    """Return the exit status of the program.

    Args:
        report: The report.
    """
    if not report.has_failed:
        return 0
    return 2 if report.is_retryable else 1


async def _warm_model(job: Job, source: ModelSource) -> WarmupReport:
    assert source.warmup  # noqa: S101  as in run_job
    deadline = time.monotonic() + source.warmup.timeout_seconds
    files = await fetch_requests(source, job.settings, job.scratch) if source.warmup.path else job.scratch
    try:
        async with Endpoint(job.root, source.name, deadline=deadline) as endpoint:
            versions = [int(version) for version in (await endpoint.read_metadata())["versions"]]
            calls, concurrency = await plan_calls(source, versions, endpoint, job.settings, files)
    except TritonUnavailableError as error:
        message = f"No server answers at {job.root}: {error}. Are the revision's pods ready, and is the port open?"
        return WarmupReport(reason=Reason.WARMUP_UNREACHABLE, message=message)
    except TritonError as error:
        message = f"The revision's pods do not serve {source.name}: {error}"
        return WarmupReport(reason=Reason.WARMUP_FAILED, message=message)
    endpoint = Endpoint(job.root, source.name, concurrency, deadline)
    run = WarmupRun(
        source.warmup, source.name, endpoint, min_rounds=count_connections(job.pods), concurrency=concurrency
    )
    return await run.run(calls, max(1.0, deadline - time.monotonic()))


async def fetch_requests(source: ModelSource, settings: Settings, scratch: Path) -> Path:
    """Fetch the folder of requests from the model's storage.

    Args:
        source: The model in the manifest, which has a warm-up.
        settings: Paths of the container.
        scratch: Folder of fetched files.

    Returns:
        The folder that has the folder of requests.

    Raises:
        Failure: The folder cannot be fetched.
    """
    assert source.warmup  # noqa: S101  as in run_job
    storage = open_source(source.storage_uri, settings)
    listing, _ = await list_files(storage, source.object_versions)
    items = tuple(item for item in listing.items if item.path.is_relative_to(source.warmup.path))
    if not items:
        return scratch  # plan_calls fails, because the folder is missing
    return (await Fetch(storage, scratch / source.name).run(Listing(items))).files


def parse_arguments(arguments: Sequence[str] | None = None) -> Job:
    """Return the options of a command line.

    Args:
        arguments: The command line; None: that of the process.
    """
    defaults = Settings()
    parser = argparse.ArgumentParser(prog="conch-warmup", description=__doc__)
    parser.add_argument("--host", required=True, help="the revision's Service")
    parser.add_argument("--port", type=int, default=names.HTTP_PORT, help="its HTTP port")
    parser.add_argument("--pods", type=int, default=1, help="number of pods to reach")
    parser.add_argument("--root", type=Path, default=defaults.root, help="parent of manifest, warmup, storage, ...")
    parser.add_argument("--scratch", type=Path, default=Path("/tmp/conch-warmup"), help="folder of fetched files")  # noqa: S108  an emptyDir
    parser.add_argument("--message", type=Path, default=Path("/dev/termination-log"), help="file of the report")
    options: Any = parser.parse_args(arguments)
    settings = replace(defaults, root=options.root)
    return Job(options.host, options.port, options.pods, settings, options.scratch, options.message)
