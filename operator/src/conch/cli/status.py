"""`kubectl conch status`: what a service does, what its rollout waits for, and what can be done about it."""

import time
from collections.abc import Iterable
from typing import Any, Final

import click

from conch.api import InferenceService, RevisionStatus, RolloutPhase, RolloutStatus, Variant
from conch.api.status import NOT_OBSERVED
from conch.api.times import parse_time
from conch.cli.actions import PAUSED_BY_USER, step_words
from conch.cli.cluster import Cluster, ask
from conch.cli.options import Access, access, service_argument
from conch.cli.printing import Table, Text, age, short, show
from conch.cli.track import noun, requests_of, where
from conch.decide.rollout import INSUFFICIENT_GPU, annotation
from conch.decide.strategies import get_steps

_PROMOTE: Final = "promote it, or abort it"
_VARIANT: Final = ("VARIANT", "REQUESTS", "STABLE", "CANDIDATE", "STEP", "READY", "WAITS FOR")
_REVISION: Final = ("NUMBER", "REVISION", "ROLE", "PHASE", "WEIGHT", "READY", "MODEL")
# What a person can do about a wait.
_WAYS: Final = {
    PAUSED_BY_USER: "resume it, promote it, or abort it",
    "WaitsForPromotion": _PROMOTE,
    "PausedOnFailure": _PROMOTE,
    INSUFFICIENT_GPU: "promote it, and its pods start all the same, or abort it",
}


@click.command()
@service_argument
@access
def status(access: Access, service: str) -> None:
    """Show what SERVICE does and waits for."""

    async def question(cluster: Cluster) -> InferenceService:
        return (await cluster.service(service))[0]

    seen = ask(access, question)
    show(access.output, status_value(seen), status_text(seen, time.time()))


def status_value(service: InferenceService) -> dict[str, Any]:
    """Return the status as it stands, and what it has to be read with."""
    meta = service.metadata
    return {
        "name": meta.name,
        "namespace": meta.namespace,
        "generation": meta.generation,
        "request": meta.annotations.get(annotation()),
        "steps": [step.to_wire() for step in get_steps(service.spec.rollout, service.status.rollout)],
        "variants": [_requests_value(variant) for variant in service.spec.variants],
        "status": service.status.to_wire(),
    }


def status_text(service: InferenceService, now: float) -> Text:
    """Return what a person reads."""
    meta, status = service.metadata, service.status
    variants = [service.of_variant(variant.name) for variant in service.spec.variants]
    text: list[str | Table] = [f"{meta.namespace}/{meta.name}, generation {meta.generation}: {_headline(service)}"]
    if status.url:
        text.append(f"Requests: {status.url}")
    if variants:
        text += ["", Table(_VARIANT, tuple(_variant(variant) for variant in variants))]
    for track in (service, *variants):
        if track.status.rollout is not None:
            text += ["", *_rollout(track, track.status.rollout, now)]
    conditions = tuple(
        (c.type, c.status, c.reason, age(now - parse_time(c.last_transition_time)), c.message)
        for c in status.conditions
    )
    if conditions:
        text += ["", Table(("CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE"), conditions)]
    if status.revisions:
        text += ["", _revisions(service), *model_warnings(status.revisions)]
    return text


def model_warnings(revisions: Iterable[RevisionStatus]) -> list[str | Table]:
    """Return the table of what models warn of, empty where they warn of nothing."""
    rows = tuple(
        (revision.name, model.name, warning.reason, warning.message)
        for revision in revisions
        for model in revision.models
        for warning in model.warnings
    )
    return ["", Table(("REVISION", "MODEL", "WARNING", "MESSAGE"), rows)] if rows else []


def _requests_value(variant: Variant) -> dict[str, Any]:
    """Return which requests a variant gets, as the manifest spells it."""
    return {word: value for word, value in variant.to_wire().items() if word != "predictor"}


def _variant(track: InferenceService) -> tuple[str, ...]:
    status, rollout, ready = track.status, track.status.rollout, track.status.condition("Ready")
    of = len(get_steps(track.spec.rollout, rollout))
    waits = rollout.reason if rollout else ready.message if ready and ready.status != "True" else ""
    return (
        track.variant,
        requests_of(track.variant_spec) if track.variant_spec else "",
        status.stable or "-",
        status.candidate or "-",
        f"{rollout.step} of {of}" if rollout else "-",
        status.ready or "-",
        waits or "-",
    )


def _headline(service: InferenceService) -> str:
    status = service.status
    if status.observed_generation in {None, NOT_OBSERVED}:
        return "the operator has not looked at it yet"
    if status.observed_generation != service.metadata.generation:
        return f"the operator has not looked at it yet; below is generation {status.observed_generation}"
    ready = status.condition("Ready")
    if ready is not None and ready.status == "True":
        return "served as asked"
    return ready.reason if ready is not None else "nothing is told"


def _rollout(service: InferenceService, rollout: RolloutStatus, now: float) -> list[str | Table]:
    """The rollout: where it is, what it waits for, what its gates say, what a person can do."""
    steps = get_steps(service.spec.rollout, rollout)
    at = (
        f"step {rollout.step} of {len(steps)} ({step_words(steps[rollout.step])})"
        if rollout.step < len(steps)
        else "all steps are passed"
    )
    since = f" since {age(now - parse_time(rollout.since))}" if rollout.since else ""
    share = f"{rollout.weight} % of the requests{f' of {noun(service)}' if service.variant else ''}"
    if rollout.observed_weight != rollout.weight:
        share += f" ({rollout.observed_weight} % as far as the traffic tells)"
    lines: list[str | Table] = [
        f"Rollout of {rollout.revision}: {rollout.phase}, {at}{since}, {share}",
        f"  {rollout.reason}: {rollout.message}",
    ]
    if way := _way(service, rollout):
        lines.append(f"  What you can do: {way}")
    if rollout.gates:
        rows = tuple((g.name, g.verdict, g.value, g.bound, g.message) for g in rollout.gates)
        lines.append(Table(("GATE", "VERDICT", "VALUE", "BOUND", "MESSAGE"), rows))
    return lines


def _way(service: InferenceService, rollout: RolloutStatus) -> str:
    failed = rollout.phase == RolloutPhase.FAILED
    way = f"retry it, or change {noun(service)}" if failed else _WAYS.get(rollout.reason)
    if way is None:
        return ""
    return f"{way}: kubectl conch {way.split()[0]}{where(service)}"


def _revisions(service: InferenceService) -> Table:
    """The living revisions; where some are of variants, with a column that says of which."""
    found = service.status.revisions
    rows = tuple(_revision(service.of_variant(revision.variant or ""), revision) for revision in found)
    if not any(revision.variant for revision in found):
        return Table(_REVISION, rows)
    told = tuple((revision.variant or "-", *row) for revision, row in zip(found, rows, strict=True))
    return Table(("VARIANT", *_REVISION), told)


def _revision(service: InferenceService, revision: RevisionStatus) -> tuple[str, ...]:
    replicas = revision.replicas
    return (
        str(revision.number),
        revision.name,
        role(service, revision.name),
        revision.phase,
        f"{revision.weight} %",
        f"{replicas.ready}/{replicas.wanted}",
        ", ".join(" ".join(filter(None, (model.name, short(model.digest)))) for model in revision.models),
    )


def role(service: InferenceService, revision: str) -> str:
    """Return what a revision is to its service at this moment; empty: it is past."""
    status = service.status
    if revision == status.stable:
        return "serves"
    if revision == status.candidate:
        return "candidate"
    failed = status.rollout is not None and status.rollout.phase == RolloutPhase.FAILED
    return "failed" if failed and status.rollout is not None and revision == status.rollout.revision else ""
