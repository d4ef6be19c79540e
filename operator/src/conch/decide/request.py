"""What people ask of a rollout, by an annotation on the service.

    conch.dev/rollout: <verb> <generation>[/<step>]
    conch.dev/rollout.<variant>: the same for the rollout of a variant, so that no request takes another's place

Why an annotation: a GitOps controller applies what stands in Git and leaves alone what it never said, and the
verb is not a wish for a state that Git should hold. Why the generation: a request speaks of one change of the
spec; when the spec changes again it is void, so nobody has to clean it up. A request is acted on once; to ask
the same again, say it with another word behind it (the CLI adds the time).

    promote 7      all requests to the candidate of generation 7, without further pauses
    promote 7/2    go on from step 2 (counted from 0)
    pause 7        stay at this step
    abort 7        back to the stable revision
    retry 7        try a failed revision once more
"""

import re
from dataclasses import dataclass
from typing import Final, Literal, Self

from conch.api import InferenceService
from conch.api.names import ANNOTATION_REQUEST

Verb = Literal["promote", "pause", "abort", "retry"]
_FORM: Final = re.compile(r"(promote|pause|abort|retry) ([0-9]{1,18})(?:/([0-9]{1,4}))?(?: [^\n]{1,64})?")


def annotation(variant: str = "") -> str:
    """Return the name of the annotation that asks the predictor's rollout, or a variant's.

    >>> annotation(), annotation("int8")
    ('conch.dev/rollout', 'conch.dev/rollout.int8')
    """
    return f"{ANNOTATION_REQUEST}.{variant}" if variant else ANNOTATION_REQUEST


@dataclass(frozen=True)
class Request:
    """One request, as it was said."""

    text: str
    verb: Verb
    step: int | None = None

    @classmethod
    def of(cls, service: InferenceService) -> Self | None:
        """Return what is asked of the service's present generation, if anything."""
        text = service.metadata.annotations.get(annotation(service.variant), "")
        match = _FORM.fullmatch(text)
        if match is None or int(match[2]) != service.metadata.generation:
            return None
        verb: Verb = match[1]  # type: ignore[assignment]  # the pattern names just these
        return cls(text, verb, int(match[3]) if match[3] else None)
