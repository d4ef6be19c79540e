"""Sequences of requests that share a state, and how Triton batches them."""

from typing import Annotated

from pydantic import ConfigDict, Field

from conch.api._base import DURATION_PATTERN, Part
from conch.api.cel import Rule, rules

# Shorter than the rules of Duration, because the CRD has it twelve times. Triton counts 64 bits of nanoseconds, which
# hold the longest text that matches.
_Time = Annotated[str, Field(max_length=32, pattern=DURATION_PATTERN)]


class DirectStrategy(Part):
    """A slot in the batch for each sequence (Triton's StrategyDirect)."""

    max_queue_delay: _Time | None = None
    """Maximum delay of a batch for minimumSlotUtilization, such as 500us. Absent: as in config.pbtxt, or 0."""
    minimum_slot_utilization: Annotated[int | None, Field(ge=0, le=100)] = None
    """Percentage of the slots that a batch waits for. Absent: as in config.pbtxt, or 0."""


class OldestStrategy(Part):
    """Batches of the sequences with the oldest requests (Triton's StrategyOldest)."""

    max_candidate_sequences: Annotated[int | None, Field(ge=1, le=1_000_000)] = None
    """Maximum number of sequences of an instance; others wait. Absent: as in config.pbtxt, or maxBatchSize."""
    preferred_batch_size: (
        Annotated[tuple[Annotated[int, Field(ge=1, le=1_000_000)], ...], Field(max_length=32)] | None
    ) = None
    """As in dynamicBatching."""
    max_queue_delay: _Time | None = None
    """As in dynamicBatching."""
    preserve_ordering: bool | None = None
    """As in dynamicBatching."""


class SequenceBatching(Part):
    """Batching of sequences (Triton's ModelSequenceBatching). An unset field has the value of config.pbtxt."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "!has(self.direct) || !has(self.oldest)",
                message="direct and oldest exclude each other; keep one of them",
            ),
            Rule(
                "!has(self.maxIdle) || self.maxIdle.matches('[1-9]')",
                message="maxIdle is above 0s; write a time such as 1m",
                path=".maxIdle",
            ),
        )
    )

    max_idle: _Time | None = None
    """Time without a request after which a sequence ends. Absent: as in config.pbtxt, or 1s."""
    direct: DirectStrategy | None = None
    """A slot in the batch for each sequence. Absent, with oldest: as in config.pbtxt, or direct."""
    oldest: OldestStrategy | None = None
    """Batches of the sequences with the oldest requests."""
