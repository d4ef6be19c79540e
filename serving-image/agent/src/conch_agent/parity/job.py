"""`conch-parity`: replays the warm-up's requests to the stable revision and to the candidate, and compares the answers.

Its result is a ParityReport, which the operator evaluates. Answers that differ are no failure.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any, Final

from conch_agent.job import Job
from conch_agent.parity.replay import UNREACHABLE, Replay, Side
from conch_agent.parity.steps import Ensembles, find_common_steps
from conch_agent.reasons import Failure, Reason
from conch_agent.threads import run_in_thread
from conch_agent.triton import TritonError, TritonUnavailableError
from conch_agent.warmup.folder import fetch_requests
from conch_agent.warmup.infer import Endpoint
from conch_agent.warmup.plan import read_user_requests
from conch_agent.warmup.requests import Request, synthesise
from conch_contract import ModelManifest, ModelSource, Parity, ParityReport, Warmup, names
from conch_contract.process_end import end_before_finalization
from conch_contract.revision_jobs import PARITY

NOT_SERVED: Final = "ParityNotServed"


@dataclass(frozen=True, kw_only=True)
class ParityJob(Job[ParityReport]):
    """A comparison of two revisions.

    Attributes:
        parity: Method of the comparison.
        stable: Service of the stable revision, as host:port.
        stable_model: Name of the stable revision's model; empty: that of the candidate's model.
        candidate: Service of the candidate, as host:port.
    """

    row = PARITY
    parity: Parity
    stable: str
    stable_model: str
    candidate: str

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Add the two Services and the method."""
        service = "Service, host or host:port"
        parser.add_argument("--stable", type=add_port, required=True, help=f"the stable revision's {service}")
        parser.add_argument("--stable-model", default="", help="the model's name there, if it is another")
        parser.add_argument("--candidate", type=add_port, required=True, help=f"the candidate's {service}")
        parser.add_argument(
            "--parity",
            type=Parity.model_validate_json,
            default=Parity(),
            help="method of the comparison, as JSON",
        )

    async def measure(self, manifest: ModelManifest) -> ParityReport:
        """Compare the two revisions with the requests of the entry's warm-up."""
        source = manifest.entry_source
        if source is None:
            raise Failure(Reason.INVALID_MANIFEST, f"{self.settings.find_manifest()} has no models.")
        return await self._compare(source, source.warmup or Warmup())

    @staticmethod
    def format_numbers(report: ParityReport) -> str:
        """Return the numbers of requests, and the largest disagreement."""
        if not report.requests:
            return ""
        worst = f"; worst: {report.worst.model_dump_json(exclude_defaults=True)}" if report.worst else ""
        return f"{report.requests} requests, {report.compared} compared, {report.agreed} agree{worst}"

    async def _compare(self, source: ModelSource, warmup: Warmup) -> ParityReport:
        deadline = time.monotonic() + warmup.timeout_seconds
        files = await fetch_requests(source, self.settings, self.scratch)
        requests = await run_in_thread(read_user_requests, source, warmup, self.settings, files)
        stable_model = self.stable_model or source.name
        stable = Side("stable revision", Endpoint(f"http://{self.stable}", stable_model, deadline=deadline))
        candidate = Side("candidate", Endpoint(f"http://{self.candidate}", source.name, deadline=deadline))
        configs = []
        for side, host, model in ((stable, self.stable, stable_model), (candidate, self.candidate, source.name)):
            try:
                async with side.endpoint as endpoint:
                    metadata, config = await endpoint.read_metadata(), await endpoint.read_config()
            except TritonUnavailableError as error:
                message = (
                    f"No server answers at {host}, the {side.name}: {error}. Are its pods ready, and is the port open?"
                )
                return self.fail(UNREACHABLE, message)
            except TritonError as error:
                return self.fail(NOT_SERVED, f"The {side.name} does not serve {model}: {error}")
            configs.append(config)
            requests = requests or make_requests(metadata, config, self.parity.requests)
        replay = Replay(self.parity, stable, candidate)
        report = await replay.run(requests, max(1.0, deadline - time.monotonic()))
        if replay.worst is None:
            return report
        worst, request = replay.worst
        steps = find_common_steps(*configs)
        ensembles = Ensembles(f"http://{self.stable}", f"http://{self.candidate}", steps, deadline)
        step = await ensembles.find_step(request, self.parity)
        return report.model_copy(update={"worst": worst.model_copy(update={"step": step})})


def add_port(host: str) -> str:
    """Return host:port of a Service.

    Args:
        host: The host, with or without a port.

    >>> add_port("magika.demo.svc"), add_port("localhost:81")
    ('magika.demo.svc:8000', 'localhost:81')
    """
    return host if ":" in host else f"{host}:{names.HTTP_PORT}"


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


main: Final = end_before_finalization(ParityJob.main)
