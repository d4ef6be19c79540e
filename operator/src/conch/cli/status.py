"""`kubectl conch status`: conditions, revisions and rollouts of a service, and the available actions."""

import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

import click

from conch.api import InferenceService, RevisionStatus, RolloutPhase, RolloutStatus, Variant
from conch.api.names import StrategyName
from conch.api.reasons import Reason
from conch.api.status import NOT_OBSERVED
from conch.api.times import parse_time
from conch.cli.actions import format_step
from conch.cli.cluster import Cluster, run_with_cluster
from conch.cli.options import Access, access, service_argument
from conch.cli.printing import Table, Text, format_age, print_value, shorten_digest
from conch.cli.track import describe_requests, describe_track, format_arguments
from conch.decide.rollout import annotation
from conch.decide.strategies import get_steps
from conch_contract import ModelState

_PROMOTE: Final = "promote it, or abort it"
_VARIANT: Final = ("VARIANT", "REQUESTS", "STABLE", "CANDIDATE", "STEP", "READY", "WAITS FOR")
_REVISION: Final = ("NUMBER", "REVISION", "ROLE", "PHASE", "WEIGHT", "READY", "MODEL")
_MAX_MODELS: Final = 3  # with their names, in a row of the table
# Actions of a user, by the reason of a wait.
_ACTIONS: Final[Mapping[str, str]] = {
    Reason.PAUSED_BY_USER: "resume it, promote it, or abort it",
    Reason.WAITS_FOR_PROMOTION: _PROMOTE,
    Reason.PAUSED_ON_FAILURE: _PROMOTE,
    Reason.INSUFFICIENT_GPU: "promote it, which starts its pods anyway, or abort it",
}


@click.command()
@service_argument
@access
def status(access: Access, service: str) -> None:
    """Show the status of SERVICE.

    It has conditions, revisions, variants, each rollout with what it waits for, and the available actions.
    """

    async def call(cluster: Cluster) -> InferenceService:
        return (await cluster.get_service(service))[0]

    seen = run_with_cluster(access, call)
    print_value(access.output, build_status_value(seen), build_status_text(seen, time.time()))


def build_status_value(service: InferenceService) -> dict[str, Any]:
    """Return the value for -o json and yaml: the status, and the fields that it refers to."""
    meta = service.metadata
    return {
        "name": meta.name,
        "namespace": meta.namespace,
        "generation": meta.generation,
        "request": meta.annotations.get(annotation()),
        "steps": [step.to_wire() for step in get_steps(service.spec.rollout, service.status.rollout)],
        "variants": [_build_requests_value(variant) for variant in service.spec.variants],
        "status": service.status.to_wire(),
    }


def build_status_text(service: InferenceService, now: float) -> Text:
    """Return the text."""
    meta, status = service.metadata, service.status
    variants = [service.of_variant(variant.name) for variant in service.spec.variants]
    text: list[str | Table] = [
        f"{meta.namespace}/{meta.name}, generation {meta.generation}: {_build_headline(service)}"
    ]
    if status.url:
        text.append(f"Requests: {status.url}")
    if variants:
        text += ["", Table(_VARIANT, tuple(_build_variant_row(variant) for variant in variants))]
    for track in (service, *variants):
        if track.status.rollout is not None:
            text += ["", *_build_rollout_text(track, track.status.rollout, now)]
    conditions = tuple(
        (c.type, c.status, c.reason, format_age(now - parse_time(c.last_transition_time)), c.message)
        for c in status.conditions
    )
    if conditions:
        text += ["", Table(("CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE"), conditions)]
    if status.revisions:
        text += ["", _build_revision_table(service), *build_model_warnings(status.revisions)]
        text += build_config_table(status.revisions)
    return text


def build_model_warnings(revisions: Iterable[RevisionStatus]) -> list[str | Table]:
    """Return the table of the warnings of models; empty without any."""
    rows = tuple(
        (revision.name, model.name, warning.reason, warning.message)
        for revision in revisions
        for model in revision.models
        for warning in model.warnings
    )
    return ["", Table(("REVISION", "MODEL", "WARNING", "MESSAGE"), rows)] if rows else []


def build_config_table(revisions: Iterable[RevisionStatus]) -> list[str | Table]:
    """Return the table of the values that Triton uses, each once with its revisions; empty without any.

    Values in which revisions differ have rows of their own.
    """
    found: dict[tuple[str, ...], list[str]] = {}
    for revision in revisions:
        for model in revision.models:
            for each in model.config:
                found.setdefault((model.name, each.field, each.value, each.origin), []).append(revision.name)
    rows = tuple((*row, ", ".join(names)) for row, names in sorted(found.items(), key=lambda row: row[0][:2]))
    return ["", Table(("MODEL", "FIELD", "VALUE", "ORIGIN", "REVISION"), rows)] if rows else []


def _build_requests_value(variant: Variant) -> dict[str, Any]:
    """Return the fields of a variant that select its requests."""
    return {word: value for word, value in variant.to_wire().items() if word != "predictor"}


def _build_variant_row(track: InferenceService) -> tuple[str, ...]:
    status, rollout, ready = track.status, track.status.rollout, track.status.condition("Ready")
    of = len(get_steps(track.spec.rollout, rollout))
    waits = rollout.reason if rollout else ready.message if ready and ready.status != "True" else ""
    return (
        track.variant,
        describe_requests(track.variant_spec) if track.variant_spec else "",
        status.stable or "-",
        status.candidate or "-",
        f"{rollout.step} of {of}" if rollout else "-",
        status.ready or "-",
        waits or "-",
    )


def _build_headline(service: InferenceService) -> str:
    status = service.status
    if status.observed_generation in {None, NOT_OBSERVED}:
        return "not observed by the operator yet"
    if status.observed_generation != service.metadata.generation:
        return f"not observed by the operator yet; the status is of generation {status.observed_generation}"
    ready = status.condition("Ready")
    if ready is not None and ready.status == "True":
        return "Ready"
    return ready.reason if ready is not None else "Unknown"


def _build_rollout_text(service: InferenceService, rollout: RolloutStatus, now: float) -> list[str | Table]:
    """Return a rollout: its step, what it waits for, its actions and its gates."""
    steps = get_steps(service.spec.rollout, rollout)
    at = (
        f"step {rollout.step} of {len(steps)} ({format_step(steps[rollout.step])})"
        if 0 <= rollout.step < len(steps)
        else "all steps are passed"
    )
    since = f" since {format_age(now - parse_time(rollout.since))}" if rollout.since else ""
    share = f"{rollout.weight} % of the requests{f' of {describe_track(service)}' if service.variant else ''}"
    if rollout.observed_weight != rollout.weight:
        share += f" (observed: {rollout.observed_weight} %)"
    strategy = "" if rollout.strategy in {"", StrategyName.PROGRESSIVE} else f" ({rollout.strategy})"
    lines: list[str | Table] = [
        f"Rollout of {rollout.revision}{strategy}: {rollout.phase}, {at}{since}, {share}",
        f"  {rollout.reason}: {rollout.message}",
    ]
    if action := _describe_action(service, rollout):
        lines.append(f"  Actions: {action}")
    if rollout.gates:
        rows = tuple((g.name, g.verdict, g.value, g.bound, g.message) for g in rollout.gates)
        lines.append(Table(("GATE", "VERDICT", "VALUE", "BOUND", "MESSAGE"), rows))
    return lines


def _describe_action(service: InferenceService, rollout: RolloutStatus) -> str:
    failed = rollout.phase == RolloutPhase.FAILED
    action = f"retry it, or change {describe_track(service)}" if failed else _ACTIONS.get(rollout.reason)
    if action is None:
        return ""
    return f"{action}: kubectl conch {action.split()[0]}{format_arguments(service)}"


def _build_revision_table(service: InferenceService) -> Table:
    """Return the table of the revisions with pods; with a column for the variant if one has any."""
    found = service.status.revisions
    rows = tuple(_build_revision_row(service.of_variant(revision.variant or ""), revision) for revision in found)
    if not any(revision.variant for revision in found):
        return Table(_REVISION, rows)
    with_variants = tuple((revision.variant or "-", *row) for revision, row in zip(found, rows, strict=True))
    return Table(("VARIANT", *_REVISION), with_variants)


def _build_revision_row(service: InferenceService, revision: RevisionStatus) -> tuple[str, ...]:
    replicas = revision.replicas
    return (
        str(revision.number),
        revision.name,
        find_role(service, revision.name),
        revision.phase,
        f"{revision.weight} %",
        f"{replicas.ready}/{replicas.desired}",
        _describe_models(revision),
    )


def _describe_models(revision: RevisionStatus) -> str:
    """Return the models with their digests; of more than a few, how many there are and are ready."""
    models, counts = revision.models, revision.model_counts
    if counts is None and len(models) <= _MAX_MODELS:
        return ", ".join(" ".join(filter(None, (model.name, shorten_digest(model.digest)))) for model in models)
    ready = sum(model.state == ModelState.READY for model in models)
    return f"{counts.ready if counts else ready}/{counts.total if counts else len(models)} models ready"


def find_role(service: InferenceService, revision: str) -> str:
    """Return the role of a revision: stable, candidate or failed; empty: it is past."""
    status = service.status
    if revision == status.stable:
        return "stable"
    if revision == status.candidate:
        return "candidate"
    failed = status.rollout is not None and status.rollout.phase == RolloutPhase.FAILED
    return "failed" if failed and status.rollout is not None and revision == status.rollout.revision else ""
