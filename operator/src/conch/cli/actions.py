"""Requests to a rollout, as values of the request annotation. Pure.

The grammar is the operator's (`conch.decide.request`). A request without effect is an error here, because an annotation
without effect gives the user no feedback. A service stands for its predictor, or for the variant that it was
reduced to.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from conch.api import Admission, InferenceService, RolloutPhase, RolloutStatus, StepInForce
from conch.api.reasons import Reason
from conch.cli.options import CommandError
from conch.cli.track import describe_subject, describe_track, format_arguments, format_status_hint
from conch.decide.rollout.request import Request, Verb
from conch.decide.strategies import get_steps


@dataclass(frozen=True)
class RequestUpdate:
    """A new value of the request annotation (None: it is removed), and the message for the user."""

    request: str | None
    message: str


def promote(service: InferenceService, now: float, *, full: bool) -> RequestUpdate:
    """Return the request that passes the current step, or with `full` all remaining steps.

    Raises:
        CommandError: there is nothing to promote.
    """
    rollout = _get_active_rollout(service)
    steps = get_steps(service.spec.rollout, rollout)
    if not 0 <= rollout.step < len(steps):
        raise CommandError(
            f"all steps of {rollout.revision} are passed, and nothing is left to promote; {format_status_hint(service)}"
        )
    if full:
        message = (
            f"{rollout.revision} gets all requests{_format_variant(service)} once its pods are ready;"
            " pauses and analyses are skipped."
        )
        return RequestUpdate(_build_request("promote", service, now), message)
    if rollout.admission == Admission.PENDING:
        what = "the GPUs do not suffice; pods without a GPU stay Pending."
        if rollout.reason == Reason.SIGNATURE_POLICY_UNREADABLE:
            what = "the signature policy cannot be read; they load no model until it can."
        message = f"{rollout.revision} starts its pods although {what}"
        return RequestUpdate(_build_request("promote", service, now, rollout.step), message)
    message = f"{rollout.revision} continues from step {rollout.step} ({format_step(steps[rollout.step])})."
    return RequestUpdate(_build_request("promote", service, now, rollout.step), message)


def pause(service: InferenceService, now: float) -> RequestUpdate:
    """Return the request that pauses the rollout at its current step.

    Raises:
        CommandError: no rollout is in progress, or it is paused already.
    """
    rollout = _get_active_rollout(service)
    request = Request.of(service)
    if request is not None and request.verb == "pause":
        raise CommandError(
            f"{rollout.revision} is paused already; continue with: kubectl conch resume{format_arguments(service)}"
        )
    message = (
        f"{rollout.revision} stays at step {rollout.step}. Continue with: kubectl conch"
        f" resume{format_arguments(service)}"
    )
    return RequestUpdate(_build_request("pause", service, now), message)


def resume(service: InferenceService) -> RequestUpdate:
    """Return the update that removes a pause.

    Raises:
        CommandError: no user has paused it.
    """
    request = Request.of(service)
    if request is None or request.verb != "pause":
        rollout = _get_active_rollout(service)
        waits = f": it waits for {rollout.reason}" if rollout.reason else ""
        message = f"{rollout.revision} is not paused by a user{waits}"
        raise CommandError(f"{message}; to pass its current step: kubectl conch promote{format_arguments(service)}")
    return RequestUpdate(None, f"{describe_subject(service)} is resumed: its rollout continues at the same step.")


def abort(service: InferenceService, now: float) -> RequestUpdate:
    """Return the request that aborts the rollout.

    Raises:
        CommandError: no rollout is in progress.
    """
    rollout = _get_active_rollout(service)
    message = (
        f"{rollout.revision} is aborted: all requests{_format_variant(service)} return to {service.status.stable}."
        f" The spec still has it: revert the spec too, or retry with: kubectl conch retry{format_arguments(service)}"
    )
    return RequestUpdate(_build_request("abort", service, now), message)


def retry(service: InferenceService, now: float) -> RequestUpdate:
    """Return the request that retries a failed revision.

    Raises:
        CommandError: no revision has failed.
    """
    rollout = _get_observed_rollout(service)
    if rollout.phase != RolloutPhase.FAILED:
        raise CommandError(
            f"{rollout.revision} has not failed, so there is nothing to retry; {format_status_hint(service)}"
        )
    return RequestUpdate(_build_request("retry", service, now), f"{rollout.revision} is retried from the first step.")


def format_step(step: StepInForce) -> str:
    """Return a step as the manifest spells it, such as `weight: 5`."""
    return ", ".join(f"{word}: {value}" for word, value in step.model_dump(by_alias=True, exclude_none=True).items())


def _get_active_rollout(service: InferenceService) -> RolloutStatus:
    """Return the rollout in progress."""
    rollout = _get_observed_rollout(service)
    if rollout.phase == RolloutPhase.FAILED:
        raise CommandError(
            f"{rollout.revision} failed ({rollout.reason}), and {service.status.stable} keeps serving; retry it with:"
            f" kubectl conch retry{format_arguments(service)}, or change {describe_track(service)}"
        )
    return rollout


def _get_observed_rollout(service: InferenceService) -> RolloutStatus:
    """Return the rollout in the status, if the status is of the latest spec."""
    name, status = service.metadata.name, service.status
    if status.observed_generation != service.metadata.generation:
        raise CommandError(
            f"the operator has not observed the latest change of {name} (generation {service.metadata.generation})"
            f" yet; retry in a moment, and if that lasts, check that the operator runs"
        )
    if status.rollout is None:
        others = [f"{variant.name} ({variant.rollout.phase})" for variant in status.variants if variant.rollout]
        if others:
            raise CommandError(
                f"the predictor of {name} has no rollout, but its variants have: {', '.join(others)}; select"
                f" one, such as --variant {others[0].split()[0]}"
            )
        serves = f"{status.stable} serves" if status.stable else "no revision serves yet"
        raise CommandError(
            f"no rollout of {describe_subject(service)} is in progress: {serves}; {format_status_hint(service)}"
        )
    return status.rollout


def _build_request(verb: Verb, service: InferenceService, now: float, step: int | None = None) -> str:
    """Return the value of the annotation; its time makes it a new request, also if verb and generation are the same."""
    generation = service.metadata.generation
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return f"{verb} {generation}{'' if step is None else f'/{step}'} {moment}"


def _format_variant(service: InferenceService) -> str:
    return f" of variant {service.variant}" if service.variant else ""
