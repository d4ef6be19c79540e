"""What people may ask of a rollout now, as the value of the annotation that asks it. Pure.

The grammar is the operator's (`conch.decide.request`). A request that nobody would act on is refused here,
because an annotation that does nothing answers nobody. A service stands for its predictor, or for the variant as
which it is looked at.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from conch.api import Admission, InferenceService, RolloutPhase, RolloutStatus, StepInForce
from conch.cli.options import Refused
from conch.cli.track import look, noun, subject, where
from conch.decide.rollout.request import Request, Verb
from conch.decide.strategies import get_steps

PAUSED_BY_USER: Final = "PausedByUser"


@dataclass(frozen=True)
class Ask:
    """What the annotation shall say (None: nothing any more), and what the person reads."""

    request: str | None
    told: str


def promote(service: InferenceService, now: float, *, full: bool) -> Ask:
    """Go on from the step that the status shows, or to the end.

    Raises:
        Refused: there is nothing to promote.
    """
    rollout = _going(service)
    steps = get_steps(service.spec.rollout, rollout)
    if rollout.step >= len(steps):
        raise Refused(f"all steps of {rollout.revision} are passed, and nothing is left to promote; {look(service)}")
    if full:
        told = (
            f"{rollout.revision} gets all requests{_of(service)} as soon as its pods for them are ready; pauses are"
            " passed over."
        )
        return Ask(_text("promote", service, now), told)
    if rollout.admission == Admission.PENDING:
        told = f"{rollout.revision} starts its pods all the same; those that find no GPU wait for a node."
        return Ask(_text("promote", service, now, rollout.step), told)
    told = f"{rollout.revision} goes on from step {rollout.step} ({step_words(steps[rollout.step])})."
    return Ask(_text("promote", service, now, rollout.step), told)


def pause(service: InferenceService, now: float) -> Ask:
    """Stay at this step.

    Raises:
        Refused: there is nothing to hold, or it is held already.
    """
    rollout = _going(service)
    asked = Request.of(service)
    if asked is not None and asked.verb == "pause":
        raise Refused(f"{rollout.revision} is held already; go on with: kubectl conch resume{where(service)}")
    told = f"{rollout.revision} stays at step {rollout.step}. Go on with: kubectl conch resume{where(service)}"
    return Ask(_text("pause", service, now), told)


def resume(service: InferenceService) -> Ask:
    """End a pause by hand.

    Raises:
        Refused: nobody has paused it by hand.
    """
    asked = Request.of(service)
    if asked is None or asked.verb != "pause":
        rollout = _going(service)
        waits = f": it waits for {rollout.reason}" if rollout.reason else ""
        told = f"{rollout.revision} is not held by hand{waits}"
        raise Refused(f"{told}; to pass the step it is at: kubectl conch promote{where(service)}")
    return Ask(None, f"{subject(service)} is held no more; its rollout goes on where it was.")


def abort(service: InferenceService, now: float) -> Ask:
    """Give the candidate up.

    Raises:
        Refused: there is none.
    """
    rollout = _going(service)
    told = (
        f"{rollout.revision} is given up, and all requests{_of(service)} go back to {service.status.stable}. The spec"
        f" still asks for it: change it back too, or try again with: kubectl conch retry{where(service)}"
    )
    return Ask(_text("abort", service, now), told)


def retry(service: InferenceService, now: float) -> Ask:
    """Try a candidate that failed once more.

    Raises:
        Refused: none has failed.
    """
    rollout = _shown(service)
    if rollout.phase != RolloutPhase.FAILED:
        raise Refused(f"{rollout.revision} has not failed, so there is nothing to retry; {look(service)}")
    return Ask(_text("retry", service, now), f"{rollout.revision} is tried once more, from the first step on.")


def step_words(step: StepInForce) -> str:
    """Return a step as the manifest spells it, such as `weight: 5`."""
    return ", ".join(f"{word}: {value}" for word, value in step.model_dump(by_alias=True, exclude_none=True).items())


def _going(service: InferenceService) -> RolloutStatus:
    """The rollout under way."""
    rollout = _shown(service)
    if rollout.phase == RolloutPhase.FAILED:
        raise Refused(
            f"{rollout.revision} failed ({rollout.reason}) and {service.status.stable} serves on; try it again with:"
            f" kubectl conch retry{where(service)}, or change {noun(service)}"
        )
    return rollout


def _shown(service: InferenceService) -> RolloutStatus:
    """The rollout that the status shows, if it speaks of the latest spec."""
    name, status = service.metadata.name, service.status
    if status.observed_generation != service.metadata.generation:
        raise Refused(
            f"the operator has not looked at the latest change of {name} (generation {service.metadata.generation})"
            f" yet; try again in a moment, and if that lasts, see whether the operator runs"
        )
    if status.rollout is None:
        others = [f"{variant.name} ({variant.rollout.phase})" for variant in status.variants if variant.rollout]
        if others:
            raise Refused(
                f"the predictor of {name} has no rollout, but its variants have: {', '.join(others)}; say which one you"
                f" mean, such as --variant {others[0].split()[0]}"
            )
        serves = f"{status.stable} serves" if status.stable else "nothing serves yet"
        raise Refused(f"no rollout of {subject(service)} is under way: {serves}; {look(service)}")
    return status.rollout


def _text(verb: Verb, service: InferenceService, now: float, step: int | None = None) -> str:
    """The request; the moment behind it makes it another one than the last, so that it is acted on."""
    generation = service.metadata.generation
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return f"{verb} {generation}{'' if step is None else f'/{step}'} {moment}"


def _of(service: InferenceService) -> str:
    return f" of variant {service.variant}" if service.variant else ""
