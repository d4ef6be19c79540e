"""Requests of users to a rollout, by an annotation on the service.

    conch.dev/rollout: <verb> <generation>[/<step>]
    conch.dev/rollout.<variant>: the same for the rollout of a variant, so that no request takes another's place

An annotation, because a GitOps controller leaves annotations alone that Git does not have, and a verb is no state that
Git should hold. The generation, because a request is for one change of the spec: with the next change it is void, and
does not have to be removed. A request has effect once; to repeat it, append another word (the CLI appends the time).

    promote 7      all requests to the candidate of generation 7, without further pauses
    promote 7/2    go on from step 2 (counted from 0)
    pause 7        stay at this step
    abort 7        back to the stable revision
    retry 7        try a failed revision once more
"""

import re
from dataclasses import dataclass
from typing import Final, Literal, Self

from conch.api import InferenceService, RolloutPhase
from conch.api.names import ANNOTATION_REQUEST
from conch.api.reasons import Reason
from conch.api.status import RequestStatus
from conch.api.text import clean
from conch.decide.state import RolloutState

DONE: Final = "Done"
REFUSED: Final = "Refused"
PENDING: Final = "Pending"

Verb = Literal["promote", "pause", "abort", "retry"]
_FORM: Final = re.compile(r"(promote|pause|abort|retry) ([0-9]{1,18})(?:/([0-9]{1,4}))?(?: [^\n]{1,64})?")


def annotation(variant: str = "") -> str:
    """Return the name of the annotation for the predictor's rollout, or for that of a variant.

    >>> annotation(), annotation("int8")
    ('conch.dev/rollout', 'conch.dev/rollout.int8')
    """
    return f"{ANNOTATION_REQUEST}.{variant}" if variant else ANNOTATION_REQUEST


@dataclass(frozen=True)
class Request:
    """One request."""

    text: str
    verb: Verb
    step: int | None = None

    @classmethod
    def of(cls, service: InferenceService) -> Self | None:
        """Return the request for the service's present generation, if there is one."""
        text = service.metadata.annotations.get(annotation(service.variant), "")
        match = _FORM.fullmatch(text)
        if match is None or int(match[2]) != service.metadata.generation:
            return None
        answered = service.status.request
        if answered is not None and answered.state == REFUSED and answered.text == clean(text):
            return None  # a refused request stays refused, also where it would have an effect later
        verb: Verb = match[1]  # type: ignore[assignment]  # the pattern names just these
        return cls(text, verb, int(match[3]) if match[3] else None)


def find_done(service: InferenceService) -> str:
    """Return the text of the request that had its effect; empty: there is none, or it pauses and has effect still.

    A rollout of new content is of the generation of the rollout before, and its requests are not for this one.

    Args:
        service: as the predictor or a variant.
    """
    request, answered = Request.of(service), service.status.request
    if request is None or request.verb == "pause" or answered is None or answered.state != DONE:
        return ""
    return request.text if answered.text == clean(request.text) else ""


def build_request_status(service: InferenceService, rollout: RolloutState | None, wanted: str) -> RequestStatus | None:
    """Return the status of the request in the annotation; None: there is none.

    Args:
        service: as the predictor or a variant.
        rollout: its state after the request was handled; None: no rollout is under way.
        wanted: the revision that the spec requests.
    """
    value = service.metadata.annotations.get(annotation(service.variant), "")
    text, before = clean(value), service.status.request
    if not text and not service.variant:
        return _refuse_unknown_variant(service)
    if not text or (before is not None and before.text == text and before.state in {DONE, REFUSED}):
        return before if text else None
    request = Request.of(service)
    # Also a candidate without ready pods is held: its pause begins when it has them.
    held = rollout is not None and (rollout.reason == Reason.PAUSED_BY_USER or rollout.unavailable_since is not None)
    if rollout is not None and request is not None and (rollout.request == value or (request.verb == "pause" and held)):
        return RequestStatus(text=text, state=DONE)
    if request is not None and request.verb == "promote" and rollout is None and _has_taken_over(service, wanted):
        return RequestStatus(text=text, state=DONE)
    match = _FORM.fullmatch(value)
    if match is not None and int(match[2]) > service.metadata.generation:
        return RequestStatus(text=text, state=PENDING, message=f"It is for generation {match[2]} of the spec")
    return RequestStatus(text=text, state=REFUSED, message=_explain_refusal(service, value, request, rollout))


def _refuse_unknown_variant(service: InferenceService) -> RequestStatus | None:
    """Return the answer to a request of the present generation for a variant that the service has not."""
    known = [variant.name for variant in service.spec.variants]
    for name, value in sorted(service.metadata.annotations.items()):
        variant = name.removeprefix(annotation()).removeprefix(".")
        match = _FORM.fullmatch(value)
        is_request = name == annotation(variant) and match is not None and int(match[2]) == service.metadata.generation
        if variant and is_request and variant not in known:
            present = f"the variants are {', '.join(known)}" if known else "the service has no variants"
            message = f"The annotation {name} is for the variant {variant!r}, which is not there: {present}"
            return RequestStatus(text=clean(value), state=REFUSED, message=message)
    return None


def _has_taken_over(service: InferenceService, wanted: str) -> bool:
    """Whether the status has a rollout under way that is over: the status write of its last step failed."""
    before = service.status.rollout
    return before is not None and before.revision == wanted and before.phase != RolloutPhase.FAILED


def _explain_refusal(
    service: InferenceService, text: str, request: Request | None, rollout: RolloutState | None
) -> str:
    """Return why a request is refused, and what to write instead."""
    generation, match = service.metadata.generation, _FORM.fullmatch(text)
    if match is None:
        return (
            f"{text!r} is not a request; write promote, pause, abort or retry with the generation, such as"
            f" 'promote {generation}', or kubectl conch promote"
        )
    if request is None:
        present = f"the spec has generation {generation}"
        return f"It is for generation {match[2]}, and {present}; write '{match[1]} {generation}'"
    return _explain_no_effect(request, rollout, generation)


def _explain_no_effect(request: Request, rollout: RolloutState | None, generation: int) -> str:
    """Return why a request for the present generation has no effect."""
    if rollout is None:
        return f"No rollout is under way, so there is nothing to {request.verb}"
    if rollout.has_failed:
        return (
            f"Revision {rollout.revision} has failed ({rollout.reason}); write 'retry {generation}', or change the spec"
        )
    if request.verb == "retry":
        return f"Revision {rollout.revision} has not failed, so there is nothing to retry"
    if request.step is not None and request.step != rollout.step:
        present = f"{request.verb} {generation}/{rollout.step}"
        return f"The rollout is at step {rollout.step}, not {request.step}; write '{present}'"
    return f"The rollout waits for a user already ({rollout.reason}); promote it or abort it"
