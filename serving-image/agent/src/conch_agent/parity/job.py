"""`conch-parity`: replays the warm-up's requests to the stable revision and to the candidate, and compares.

Its result is the container's termination message, a ParityReport as JSON, so it needs no API credentials. Whether
the agreement is enough is the operator's to say.
Exit status: 0 compared, 1 nothing to compare and no retry cures it, 2 nothing answered: worth a retry.
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
from conch_agent.threads import in_thread
from conch_agent.triton import Refused, TritonGone
from conch_agent.warmup.infer import Endpoint
from conch_agent.warmup.job import fetch_requests, write
from conch_agent.warmup.plan import written_by_user
from conch_agent.warmup.requests import Request, synthesised
from conch_contract import ModelManifest, ModelSource, Parity, ParityReport, Warmup, names
from conch_contract.parity import COMPARED

REFUSED: Final = "ParityNotServed"


@dataclass(frozen=True)
class Job:
    """Whom to compare, how, and where this container finds and leaves things."""

    asked: Parity
    stable: str  # host:port
    stable_model: str  # empty: it has the candidate's name
    candidate: str
    settings: Settings
    scratch: Path
    message: Path


def main() -> None:
    """Compare, tell, and end."""
    job = from_arguments()
    report = asyncio.run(replayed(job))
    write(report, job.message)
    sys.stdout.write(line(report) + "\n")
    sys.exit(status(report))


async def replayed(job: Job) -> ParityReport:
    """Compare the two revisions on the requests of the manifest's first model that has a warm-up."""
    try:
        manifest = ModelManifest.model_validate_json(job.settings.manifest.read_bytes())
        source = next(iter(source for source in manifest.models if source.warmup), manifest.models[0])
        return await _compare(job, source, source.warmup or Warmup())
    except Failure as failure:
        return ParityReport(reason=failure.reason, message=failure.message)
    except (OSError, ValidationError, IndexError) as error:
        return ParityReport(reason=Reason.INVALID_MANIFEST, message=f"{job.settings.manifest} cannot be read: {error}")
    except Exception as error:  # noqa: BLE001  a defect, too, must be told in the termination message
        return ParityReport(reason=Reason.INTERNAL, message=f"{type(error).__name__}: {error}")


async def _compare(job: Job, source: ModelSource, warmup: Warmup) -> ParityReport:
    deadline = time.monotonic() + warmup.timeout_seconds
    files = await fetch_requests(source, job.settings, job.scratch) if warmup.path else job.scratch
    requests = await in_thread(written_by_user, source, warmup, job.settings, files)
    stable_model = job.stable_model or source.name
    stable = Side("stable revision", Endpoint(f"http://{job.stable}", stable_model, deadline=deadline))
    candidate = Side("candidate", Endpoint(f"http://{job.candidate}", source.name, deadline=deadline))
    for side, host, model in ((stable, job.stable, stable_model), (candidate, job.candidate, source.name)):
        try:
            async with side.endpoint as endpoint:
                metadata, config = await endpoint.metadata(), await endpoint.config()
        except TritonGone as gone:
            message = f"No server answers at {host}, the {side.name}: {gone}. Are its pods ready, and is the port open?"
            return ParityReport(reason=UNREACHABLE, message=message)
        except Refused as refusal:
            return ParityReport(reason=REFUSED, message=f"The {side.name} does not serve {model}: {refusal}")
        requests = requests or made(metadata, config, job.asked.requests)
    return await Replay(job.asked, stable, candidate).run(requests, max(1.0, deadline - time.monotonic()))


def made(metadata: dict[str, Any], config: dict[str, Any], count: int) -> list[Request]:
    """Return `count` different requests. Raises Failure where the model's inputs do not allow so many."""
    requests = {request.content: request for request in (synthesised(metadata, config, seed) for seed in range(count))}
    if len(requests) < count:
        message = (
            f"Only {len(requests)} different requests can be made from the model's metadata, {count} are asked for: "
            "whole numbers stay 0, since not every table has another index. Write requests into predictor.warmup, or "
            f"lower parity.requests to {len(requests)}."
        )
        raise Failure(Reason.PARITY_TOO_FEW, message)
    return list(requests.values())


def line(report: ParityReport) -> str:
    """Return the report for a person who reads the Job's log."""
    told = f"{report.reason}: " + (f"{report.message} " if report.message else "")
    if not report.requests:
        return told.strip()
    told += f"{report.requests} requests, {report.compared} compared, {report.agreed} agree"
    worst = report.worst
    return told + (f"; worst: {worst.model_dump_json(exclude_defaults=True)}" if worst else "")


def status(report: ParityReport) -> int:
    """Return the exit status."""
    if report.reason == COMPARED:
        return 0
    return 2 if report.passing else 1


def from_arguments(arguments: Sequence[str] | None = None) -> Job:
    """Read the command line; in a Job's pod it names both revisions and how to compare."""
    own = Settings()
    parser = argparse.ArgumentParser(prog="conch-parity", description=__doc__)
    parser.add_argument("--stable", required=True, help="the stable revision's Service, host or host:port")
    parser.add_argument("--stable-model", default="", help="the model's name there, if it is another")
    parser.add_argument("--candidate", required=True, help="the candidate's Service, host or host:port")
    parser.add_argument("--asked", type=Parity.model_validate_json, default=Parity(), help="how to compare, as JSON")
    parser.add_argument("--root", type=Path, default=own.root, help="parent of manifest, warmup, storage, ...")
    parser.add_argument("--scratch", type=Path, default=Path("/tmp/conch-parity"), help="where files are fetched to")  # noqa: S108  an emptyDir
    parser.add_argument("--message", type=Path, default=Path("/dev/termination-log"), help="where the report goes")
    given: Any = parser.parse_args(arguments)
    stable, candidate = (
        host if ":" in host else f"{host}:{names.HTTP_PORT}" for host in (given.stable, given.candidate)
    )
    settings = replace(own, root=given.root)
    return Job(given.asked, stable, given.stable_model, candidate, settings, given.scratch, given.message)
