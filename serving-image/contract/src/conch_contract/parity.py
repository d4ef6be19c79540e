"""Parity: whether a candidate answers as the stable revision does. What is asked of the Job, and what came of it."""

from typing import Final, Literal

from conch_contract._base import Count, Wire

COMPARED: Final = "Compared"
# Reasons that another try may cure: nobody answered in time, or the program itself came to grief.
_PASSING: Final = frozenset({"ParityUnreachable", "ParityTimedOut", "ParityBroken", "Unreachable", "InternalError"})


class Parity(Wire):
    """How answers are compared.

    `way` and `bound`: `tolerance`, how far a floating-point value may be from the stable revision's
    (|candidate - stable| is at most bound * max(1, |stable|), everything else must be equal); `cosine`, the least
    cosine between the two vectors along the last axis; `argmax`, the same index of the largest value along the last
    axis (no bound). `outputs` are compared, all that both answers have where none is named. `requests` are made
    where the warm-up's are made from the model's metadata; requests that the user wrote are all sent once.
    """

    way: Literal["tolerance", "cosine", "argmax"] = "tolerance"
    bound: float = 0.001
    outputs: tuple[str, ...] = ()
    requests: int = 20


class Disagreement(Wire):
    """Where two answers to one request differ most. `index` counts in row-major order; None: all of the output.

    `stable` and `candidate` are the two values, or what stands in their place (a shape, Triton's refusal), as text.
    """

    request: str = ""
    output: str = ""
    index: Count | None = None
    stable: str = ""
    candidate: str = ""
    how: str = ""


class ParityReport(Wire):
    """What a comparison saw: the termination message of the parity Job.

    Of `requests` different ones `compared` were answered by the stable revision and could be compared, and `agreed`
    of these agree. What the candidate refuses (`candidate_failures`) disagrees; what the stable revision refuses
    (`stable_failures`) is left out. A lost connection is neither. `worst` is the farthest disagreement. `reason` is
    `Compared`, or one CamelCase word for why nothing can be said, with `message` as its sentence.
    """

    requests: Count = 0
    compared: Count = 0
    agreed: Count = 0
    stable_failures: Count = 0
    candidate_failures: Count = 0
    worst: Disagreement | None = None
    reason: str = ""
    message: str = ""

    @property
    def passing(self) -> bool:
        """Whether the Job tries again (exit status 2): it then has the last word."""
        return self.reason in _PASSING
