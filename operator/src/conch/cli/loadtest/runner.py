"""From a wish to its figures: the way to the service, its requests, the run, and the picture."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from conch.api import InferenceService
from conch.api.kinds import AUTOSCALER, CONFIG_MAP, SERVICE, Ref
from conch.api.names import ConditionType
from conch.cli.cluster import Cluster
from conch.cli.loadtest.client import Lanes, Target, describe, ready
from conch.cli.loadtest.driver import Driver, words
from conch.cli.loadtest.endpoint import TrackRoute, open_way
from conch.cli.loadtest.options import Wish
from conch.cli.loadtest.replicas import replicas
from conch.cli.loadtest.reporter import Telling
from conch.cli.loadtest.results import Outcome, Seen, series, summary
from conch.cli.loadtest.run import run
from conch.cli.loadtest.tensors import VARIETY, Request, from_config_map, remedy, synthesised, written
from conch.cli.options import Refused
from conch.cli.track import chosen, look, subject
from conch.write.errors import CallError
from conch_contract import names

_PROBE_SECONDS: Final = 2.0  # for an address that may lead nowhere from here


async def course(cluster: Cluster, wish: Wish, telling: Telling) -> dict[str, Any]:
    """Run, tell, draw, and return the figures.

    Raises:
        Refused: the service cannot be asked, or not so.
    """
    service = served(chosen((await cluster.service(wish.service))[0], wish.variant))
    model = service.status.model.name if service.status.model else service.model_name

    def target(way: TrackRoute, seconds: float) -> Target:
        return Target(wish.protocol, way.address, model, way.tls, wish.headers, seconds)

    async def answers(way: TrackRoute) -> bool:
        try:
            return await ready(target(way, _PROBE_SECONDS))
        except Exception:  # noqa: BLE001  whatever it is, that is no way
            return False

    async def replicas_now() -> tuple[int, int] | None:
        return await _replicas(cluster, wish)

    async with open_way(cluster, service, wish, await _cluster_ip(cluster, service), answers) as way:
        aim = target(way, wish.timeout)
        said = await requests_of_warmup(cluster, service)
        requests, sequences = await prepared(aim, said)
        telling.say(f"{subject(service)} is asked over {wish.protocol}: {way.told}")
        async with Lanes(aim, requests, sequences=sequences) as lanes:
            driver = Driver(lanes.send, wish.concurrency)
            with telling:
                started = datetime.now(UTC)
                seen, interrupted = await run(driver, wish.schedule.dues(), replicas_now, telling)
        lost = way.lost()
    title = f"{subject(service)}: {wish.rate} requests a second"
    return {
        "name": wish.service,
        "namespace": cluster.namespace,
        "variant": wish.variant,
        "model": model,
        "protocol": wish.protocol,
        "way": way.told,
        "rate": wish.rate,
        "duration": wish.duration,
        "started": started.isoformat(timespec="milliseconds"),
        "interrupted": interrupted,
        "forwardLost": lost or None,
        "plot": _draw(title, wish.plot, driver.outcomes, seen, telling) if wish.plot else None,
        **summary(driver.outcomes, seen, 0.0 if interrupted else wish.schedule.seconds),
    }


def served(service: InferenceService) -> InferenceService:
    """Return the service, if there is somebody to ask.

    Raises:
        Refused: there is not.
    """
    status = service.status
    told = status.condition(ConditionType.SERVING)
    if status.url is None or told is None or told.status != "True":
        why = f": {told.reason}, {told.message}" if told else ""
        raise Refused(f"{subject(service)} serves nothing yet{why}; {look(service)}")
    return service


async def _cluster_ip(cluster: Cluster, service: InferenceService) -> str:
    """Return the address of its Service; empty where it has none, or we may not know it."""
    try:
        found = await cluster.server.get(cluster.namespace, Ref(SERVICE, service.track))
    except CallError:
        return ""
    address = str((found or {}).get("spec", {}).get("clusterIP") or "")
    return "" if address == "None" else address


async def requests_of_warmup(cluster: Cluster, service: InferenceService) -> list[Request]:
    """Return what the user wrote for the warm-up, where it can be read from here; files in the storage cannot."""
    warmup = service.spec.predictor.warmup
    if warmup is None:
        return []
    if warmup.config_map_ref is None:
        return written(warmup)
    name = warmup.config_map_ref.name
    found = await cluster.server.get(cluster.namespace, Ref(CONFIG_MAP, name))
    return from_config_map(name, (found or {}).get("data") or {})


async def prepared(target: Target, said: list[Request]) -> tuple[list[Request], bool]:
    """Return the requests, each of which the model has answered once, and whether each has to be a sequence.

    Raises:
        Refused: the model is not there, or does not take them.
    """
    try:
        metadata, config = await describe(target)
    except Exception as error:
        told = f"{target.address} does not describe the model {target.model}: {words(error)}"
        raise Refused(f"{told}; are --url, --protocol and --header right?") from error
    if (config.get("model_transaction_policy") or {}).get("decoupled"):
        raise Refused(f"{target.model} is decoupled: it answers by a stream, which this command does not ask for")
    requests = said or [synthesised(metadata, config, seed) for seed in range(VARIETY)]
    sequences = "sequence_batching" in config
    async with Lanes(target, requests, sequences=sequences, lanes=1) as lanes:
        for request in requests:
            try:
                await lanes.send()
            except Exception as error:
                way = "correct it in spec.predictor.warmup" if said else remedy(metadata, config)
                raise Refused(f"{target.model} does not answer {request.label}: {words(error)}; {way}") from error
    return requests, sequences


async def _replicas(cluster: Cluster, wish: Wish) -> tuple[int, int] | None:
    """Return how many replicas are ready and desired; None where it cannot be told at this moment."""
    try:
        service = chosen((await cluster.service(wish.service))[0], wish.variant)
    except (CallError, Refused):
        return None
    try:
        scalers = await cluster.server.list(AUTOSCALER, cluster.namespace, f"{names.LABEL_SERVICE}={wish.service}")
    except CallError:  # no right to it, perhaps; the status tells it too, a moment later
        scalers = []
    return replicas(service, scalers)


def _draw(title: str, file: Path, outcomes: list[Outcome], seen: list[Seen], telling: Telling) -> str | None:
    """Return where the picture is; None where it cannot be written, which must not cost the figures."""
    from conch.cli.loadtest.plot import figure, save  # noqa: PLC0415  needed by those who want a picture

    try:
        save(figure(title, series(outcomes, seen)), file)
    except OSError as error:
        telling.say(f"There is no picture: {file}: {error.strerror or error}")
        return None
    return str(file)
