"""Runs a load test: it finds the endpoint, prepares the requests, runs the driver, and draws the plot."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from conch.api import InferenceService
from conch.api.kinds import AUTOSCALER, CONFIG_MAP, SERVICE, Ref
from conch.api.names import ConditionType
from conch.cli.cluster import Cluster
from conch.cli.loadtest.client import ClientPool, Target, is_ready, read_model
from conch.cli.loadtest.driver import Driver, describe_failure
from conch.cli.loadtest.endpoint import Endpoint, open_endpoint
from conch.cli.loadtest.options import LoadOptions
from conch.cli.loadtest.replicas import count_replicas
from conch.cli.loadtest.reporter import Reporter
from conch.cli.loadtest.results import Outcome, ReplicaSample, build_series, build_summary
from conch.cli.loadtest.run import run_driver
from conch.cli.loadtest.tensors import (
    VARIETY,
    Request,
    build_remedy,
    generate_request,
    parse_config_map,
    read_manifest_requests,
)
from conch.cli.options import CommandError
from conch.cli.track import describe_subject, format_status_hint, select_track
from conch.write.errors import CallError
from conch_contract import names

_PROBE_SECONDS: Final = 2.0  # for an address that may be unreachable


async def run_load_test(cluster: Cluster, options: LoadOptions, reporter: Reporter) -> dict[str, Any]:
    """Run a load test with reports and a plot, and return its figures.

    Raises:
        CommandError: the service does not serve, or not with these options.
    """
    service = require_serving(select_track((await cluster.get_service(options.service))[0], options.variant))
    model = service.status.model.name if service.status.model else service.model_name

    def target(endpoint: Endpoint, seconds: float) -> Target:
        return Target(options.protocol, endpoint.address, model, endpoint.tls, options.headers, seconds)

    async def is_reachable(endpoint: Endpoint) -> bool:
        try:
            return await is_ready(target(endpoint, _PROBE_SECONDS))
        except Exception:  # noqa: BLE001  any error: the model is not ready there
            return False

    async def read_replicas() -> tuple[int, int] | None:
        return await _read_replicas(cluster, options)

    async with open_endpoint(
        cluster, service, options, await _read_cluster_ip(cluster, service), is_reachable
    ) as endpoint:
        model_target = target(endpoint, options.timeout)
        configured = await read_warmup_requests(cluster, service)
        requests, sequences = await prepare_requests(model_target, configured)
        reporter.print_line(f"Load on {describe_subject(service)} over {options.protocol}: {endpoint.description}")
        async with ClientPool(model_target, requests, sequences=sequences) as pool:
            driver = Driver(pool.send, options.concurrency)
            with reporter:
                started = datetime.now(UTC)
                samples, interrupted = await run_driver(driver, options.schedule.dues(), read_replicas, reporter)
        forward_error = endpoint.read_error()
    title = f"{describe_subject(service)}: {options.rate} requests a second"
    return {
        "name": options.service,
        "namespace": cluster.namespace,
        "variant": options.variant,
        "model": model,
        "protocol": options.protocol,
        "endpoint": endpoint.description,
        "rate": options.rate,
        "duration": options.duration,
        "started": started.isoformat(timespec="milliseconds"),
        "interrupted": interrupted,
        "forwardError": forward_error or None,
        "plot": _draw(title, options.plot, driver.outcomes, samples, reporter) if options.plot else None,
        **build_summary(driver.outcomes, samples, 0.0 if interrupted else options.schedule.seconds),
    }


def require_serving(service: InferenceService) -> InferenceService:
    """Return the service if it serves.

    Raises:
        CommandError: it does not serve.
    """
    status = service.status
    condition = status.condition(ConditionType.SERVING)
    if status.url is None or condition is None or condition.status != "True":
        why = f": {condition.reason}, {condition.message}" if condition else ""
        raise CommandError(f"{describe_subject(service)} does not serve yet{why}; {format_status_hint(service)}")
    return service


async def _read_cluster_ip(cluster: Cluster, service: InferenceService) -> str:
    """Return the cluster IP of its Service; empty where there is none, or without the permission to read it."""
    try:
        found = await cluster.server.get(cluster.namespace, Ref(SERVICE, service.track))
    except CallError:
        return ""
    address = str((found or {}).get("spec", {}).get("clusterIP") or "")
    return "" if address == "None" else address


async def read_warmup_requests(cluster: Cluster, service: InferenceService) -> list[Request]:
    """Return the requests of the warm-up in the spec or its ConfigMap; not those of files in the storage."""
    warmup = service.spec.predictor.warmup
    if warmup is None:
        return []
    if warmup.config_map_ref is None:
        return read_manifest_requests(warmup)
    name = warmup.config_map_ref.name
    found = await cluster.server.get(cluster.namespace, Ref(CONFIG_MAP, name))
    return parse_config_map(name, (found or {}).get("data") or {})


async def prepare_requests(target: Target, configured: list[Request]) -> tuple[list[Request], bool]:
    """Return the requests, each of which the model has answered once, and whether each must be a sequence.

    Raises:
        CommandError: the model is not there, or rejects a request.
    """
    try:
        metadata, config = await read_model(target)
    except Exception as error:
        message = f"{target.address} does not describe the model {target.model}: {describe_failure(error)}"
        raise CommandError(f"{message}; are --url, --protocol and --header right?") from error
    if (config.get("model_transaction_policy") or {}).get("decoupled"):
        raise CommandError(f"{target.model} is decoupled: it answers by a stream, which this command does not support")
    requests = configured or [generate_request(metadata, config, seed) for seed in range(VARIETY)]
    sequences = "sequence_batching" in config
    async with ClientPool(target, requests, sequences=sequences, size=1) as pool:
        for request in requests:
            try:
                await pool.send()
            except Exception as error:
                hint = "correct it in spec.predictor.warmup" if configured else build_remedy(metadata, config)
                raise CommandError(
                    f"{target.model} does not answer {request.label}: {describe_failure(error)}; {hint}"
                ) from error
    return requests, sequences


async def _read_replicas(cluster: Cluster, options: LoadOptions) -> tuple[int, int] | None:
    """Return the ready and the desired replicas; None where they cannot be read at this moment."""
    try:
        service = select_track((await cluster.get_service(options.service))[0], options.variant)
    except (CallError, CommandError):
        return None
    try:
        scalers = await cluster.server.list(AUTOSCALER, cluster.namespace, f"{names.LABEL_SERVICE}={options.service}")
    except CallError:  # perhaps without the permission; the status has it too, a moment later
        scalers = []
    return count_replicas(service, scalers)


def _draw(
    title: str, file: Path, outcomes: list[Outcome], samples: list[ReplicaSample], reporter: Reporter
) -> str | None:
    """Return the file of the plot; None where it cannot be written, which does not end the command."""
    from conch.cli.loadtest.plot import draw_figure, save_figure  # noqa: PLC0415  needed for --plot only

    try:
        save_figure(draw_figure(title, build_series(outcomes, samples)), file)
    except OSError as error:
        reporter.print_line(f"The plot is not written: {file}: {error.strerror or error}")
        return None
    return str(file)
