"""Parity: the settings of the parity Job, and its report."""

from typing import ClassVar, Final, Literal

from conch_contract._base import Count, Wire
from conch_contract.job_report import JobReport

COMPARED: Final = "Compared"


class Parity(Wire):
    """The method of a comparison of answers.

    Attributes:
        method: `tolerance`: |candidate - stable| of a floating-point value is at most bound * max(1, |stable|), and all
            other values are equal. `cosine`: the cosine between the two vectors along the last axis is at least bound.
            `argmax`: the largest value along the last axis has the same index; bound has no meaning.
        bound: The bound of the method.
        outputs: Names of the outputs to compare; empty: all that both answers have.
        requests: Number of requests made from the model's metadata. Requests of the user are all sent once.
    """

    method: Literal["tolerance", "cosine", "argmax"] = "tolerance"
    bound: float = 0.001
    outputs: tuple[str, ...] = ()
    requests: int = 20


class Disagreement(Wire):
    """The largest difference of two answers to one request.

    Attributes:
        request: Label of the request.
        output: Name of the output.
        index: Position of the value in row-major order; None: the whole output.
        stable: The stable revision's value as text, or a shape or refusal in its place.
        candidate: The same of the candidate.
        how: The difference and its bound, as text.
        step: The model of the ensemble's first step that answers the same inputs differently; empty: it is not known.
    """

    request: str = ""
    output: str = ""
    index: Count | None = None
    stable: str = ""
    candidate: str = ""
    how: str = ""
    step: str = ""


class ParityReport(JobReport):
    """Result of a comparison: the termination message of the parity Job.

    Attributes:
        requests: Number of different requests that were sent.
        compared: Number of requests whose answers could be compared: the stable revision answered them.
        agreed: Number of compared requests to which both revisions answer alike.
        stable_failures: Number of requests that the stable revision refused. They are not compared.
        candidate_failures: Number of compared requests that the candidate refused. They disagree.
        worst: The largest disagreement.
        reason: `Compared`, or the CamelCase reason why there is no result.
        message: The sentence to the reason.
    """

    successes: ClassVar = frozenset({COMPARED})
    retryable: ClassVar = frozenset(
        {"ParityUnreachable", "ParityTimedOut", "ParityBroken", "Unreachable", "InternalError"}
    )

    requests: Count = 0
    compared: Count = 0
    agreed: Count = 0
    stable_failures: Count = 0
    candidate_failures: Count = 0
    worst: Disagreement | None = None
