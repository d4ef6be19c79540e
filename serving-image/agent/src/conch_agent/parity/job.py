"""`conch-parity`: replays the warm-up's requests to the stable revision and to the candidate, and compares the answers.

Its result is the container's termination message, a ParityReport as JSON, so it needs no API credentials. The operator
evaluates it.
Exit status: 0 compared, 1 a failure that no retry cures, 2 a failure that a retry may cure, such as no answer.
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

from conch_agent.parity.replay import UNREACHABLE, Replay, Side
from conch_agent.reasons import Failure, Reason
from conch_agent.settings import Settings
from conch_agent.threads import run_in_thread
from conch_agent.triton import TritonError, TritonUnavailableError
from conch_agent.warmup.infer import Endpoint
from conch_agent.warmup.job import fetch_requests, write_report
from conch_agent.warmup.plan import read_user_requests
from conch_agent.warmup.requests import Request, synthesise
from conch_contract import ModelManifest, ModelSource, Parity, ParityReport, Warmup, names
from conch_contract.parity import COMPARED

NOT_SERVED: Final = "ParityNotServed"


@dataclass(frozen=True)
class Job:
    """The options of the command line.

    Attributes:
        parity: Method of the comparison.
        stable: Service of the stable revision, as host:port.
        stable_model: Name of the stable revision's model; empty: that of the candidate's model.
        candidate: Service of the candidate, as host:port.
        settings: Paths of the container.
        scratch: Folder of fetched files.
        message: File of the termination message.
    """

    parity: Parity
    stable: str
    stable_model: str
    candidate: str
    settings: Settings
    scratch: Path
    message: Path


def main() -> None:
    """Run the program."""
    job = parse_arguments()
    report = asyncio.run(run_job(job))
    write_report(report, job.message)
    sys.stdout.write(format_report(report) + "\n")
    sys.exit(get_exit_status(report))


async def run_job(job: Job) -> ParityReport:
    """Compare the two revisions with the requests of the manifest's first model that has a warm-up.

    Args:
        job: The options.

    Returns:
        The report, also of a failure.
    """
    try:
        manifest = ModelManifest.model_validate_json(job.settings.manifest.read_bytes())
        source = next(iter(source for source in manifest.models if source.warmup), manifest.models[0])
        return await _compare(job, source, source.warmup or Warmup())
    except Failure as failure:
        return ParityReport(reason=failure.reason, message=failure.message)
    except (OSError, ValidationError, IndexError) as error:
        return ParityReport(reason=Reason.INVALID_MANIFEST, message=f"{job.settings.manifest} cannot be read: {error}")
    except Exception as error:  # noqa: BLE001  the termination message has defects of the program, too
        return ParityReport(reason=Reason.INTERNAL, message=f"{type(error).__name__}: {error}")


async def _compare(job: Job, source: ModelSource, warmup: Warmup) -> ParityReport:
    deadline = time.monotonic() + warmup.timeout_seconds
    files = await fetch_requests(source, job.settings, job.scratch) if warmup.path else job.scratch
    requests = await run_in_thread(read_user_requests, source, warmup, job.settings, files)
    stable_model = job.stable_model or source.name
    stable = Side("stable revision", Endpoint(f"http://{job.stable}", stable_model, deadline=deadline))
    candidate = Side("candidate", Endpoint(f"http://{job.candidate}", source.name, deadline=deadline))
    for side, host, model in ((stable, job.stable, stable_model), (candidate, job.candidate, source.name)):
        try:
            async with side.endpoint as endpoint:
                metadata, config = await endpoint.read_metadata(), await endpoint.read_config()
        except TritonUnavailableError as error:
            message = (
                f"No server answers at {host}, the {side.name}: {error}. Are its pods ready, and is the port open?"
            )
            return ParityReport(reason=UNREACHABLE, message=message)
        except TritonError as error:
            return ParityReport(reason=NOT_SERVED, message=f"The {side.name} does not serve {model}: {error}")
        requests = requests or make_requests(metadata, config, job.parity.requests)
    return await Replay(job.parity, stable, candidate).run(requests, max(1.0, deadline - time.monotonic()))


def make_requests(metadata: dict[str, Any], config: dict[str, Any], count: int) -> list[Request]:
    """Return different requests that are made from a model's metadata.

    Args:
        metadata: Triton's metadata of the model.
        config: Triton's configuration of the model.
        count: The number of requests.

    Raises:
        Failure: ParityTooFewRequests, if the model's inputs do not allow so many.
    """
    requests = {request.content: request for request in (synthesise(metadata, config, seed) for seed in range(count))}
    if len(requests) < count:
        message = (
            f"Only {len(requests)} different requests can be made from the model's metadata, and parity.requests is "
            f"{count}: whole numbers stay 0, since a table may have no other index. Write requests into "
            f"predictor.warmup, or lower parity.requests to {len(requests)}."
        )
        raise Failure(Reason.PARITY_TOO_FEW, message)
    return list(requests.values())


def format_report(report: ParityReport) -> str:
    """Return the report as a line of the Job's log.

    Args:
        report: The report.
    """
    text = f"{report.reason}: " + (f"{report.message} " if report.message else "")
    if not report.requests:
        return text.strip()
    text += f"{report.requests} requests, {report.compared} compared, {report.agreed} agree"
    worst = report.worst
    return text + (f"; worst: {worst.model_dump_json(exclude_defaults=True)}" if worst else "")


def get_exit_status(report: ParityReport) -> int:
    """Return the exit status of the program.

    Args:
        report: The report.
    """
    if report.reason == COMPARED:
        return 0
    return 2 if report.is_retryable else 1


def parse_arguments(arguments: Sequence[str] | None = None) -> Job:
    """Return the options of a command line.

    Args:
        arguments: The command line; None: that of the process.
    """
    defaults = Settings()
    parser = argparse.ArgumentParser(prog="conch-parity", description=__doc__)
    parser.add_argument("--stable", required=True, help="the stable revision's Service, host or host:port")
    parser.add_argument("--stable-model", default="", help="the model's name there, if it is another")
    parser.add_argument("--candidate", required=True, help="the candidate's Service, host or host:port")
    parser.add_argument(
        "--asked",
        dest="parity",
        type=Parity.model_validate_json,
        default=Parity(),
        help="method of the comparison, as JSON",
    )
    parser.add_argument("--root", type=Path, default=defaults.root, help="parent of manifest, warmup, storage, ...")
    parser.add_argument("--scratch", type=Path, default=Path("/tmp/conch-parity"), help="folder of fetched files")  # noqa: S108  an emptyDir
    parser.add_argument("--message", type=Path, default=Path("/dev/termination-log"), help="file of the report")
    options: Any = parser.parse_args(arguments)
    stable, candidate = (
        host if ":" in host else f"{host}:{names.HTTP_PORT}" for host in (options.stable, options.candidate)
    )
    settings = replace(defaults, root=options.root)
    return Job(options.parity, stable, options.stable_model, candidate, settings, options.scratch, options.message)
