"""From the typed fields to the contract's TritonConfig, which the agent merges into config.pbtxt."""

from collections.abc import Mapping
from typing import Final, Literal

from conch import api
from conch.api import duration_seconds
from conch.api.models import REPOSITORY, NamedModel
from conch_contract import (
    Accelerator,
    DirectStrategy,
    DynamicBatching,
    InstanceGroup,
    OldestStrategy,
    Optimization,
    Priorities,
    QueuePolicy,
    RateLimiter,
    RateLimiterResource,
    SequenceBatching,
    TritonConfig,
    VersionPolicy,
)

_TIMEOUT_ACTIONS: Final[Mapping[str, Literal["REJECT", "DELAY"]]] = {"Reject": "REJECT", "Delay": "DELAY"}
_PRIORITIES: Final[Mapping[str, Literal["PRIORITY_DEFAULT", "PRIORITY_MAX", "PRIORITY_MIN"]]] = {
    "Default": "PRIORITY_DEFAULT",
    "Max": "PRIORITY_MAX",
    "Min": "PRIORITY_MIN",
}


def build_model_config(model: NamedModel) -> TritonConfig:
    """Return the typed fields of a model in Triton's units.

    An unset field stays unset: config.pbtxt or Triton decides it.
    """
    typed = model.triton
    return TritonConfig(
        max_batch_size=typed.max_batch_size,
        instance_groups=tuple(
            InstanceGroup(
                kind=group.kind,
                count=group.count,
                gpus=group.gpus,
                rate_limiter=_convert_rate_limiter(group.rate_limiter) if group.rate_limiter else None,
            )
            for group in typed.instance_groups
        ),
        dynamic_batching=_convert_batching(typed.dynamic_batching),
        sequence_batching=_convert_sequences(typed.sequence_batching) if typed.sequence_batching else None,
        optimization=_convert_optimization(typed.optimization) if typed.optimization else None,
        version_policy=_convert_version_policy(typed.version_policy),
        parameters=typed.parameters or {},
        response_cache=_uses_response_cache(model),
        text=typed.config or "",
    )


def _uses_response_cache(model: NamedModel) -> bool:
    """Whether responseCache concerns the model, since it is the only one. Of several, config.pbtxt decides it."""
    is_only_one = isinstance(model.triton, api.Triton) and model.model_format.name != REPOSITORY
    return is_only_one and model.triton.to_wire().get("responseCache") is not None


def _convert_batching(typed: api.DynamicBatching | None) -> DynamicBatching | None:
    if typed is None:
        return None
    levels = typed.priorities
    return DynamicBatching(
        max_queue_delay_microseconds=_convert_duration(typed.max_queue_delay),
        preferred_batch_size=typed.preferred_batch_size,
        preserve_ordering=typed.preserve_ordering,
        queue_policy=_convert_queue_policy(typed.queue_policy) if typed.queue_policy else None,
        priorities=Priorities(levels=levels.levels, default_level=levels.default_level) if levels else None,
    )


def _convert_queue_policy(typed: api.QueuePolicy) -> QueuePolicy:
    return QueuePolicy(
        timeout_action=_TIMEOUT_ACTIONS[typed.timeout_action] if typed.timeout_action else None,
        default_timeout_microseconds=_convert_duration(typed.default_timeout),
        allow_timeout_override=typed.allow_timeout_override,
        max_queue_size=typed.max_queue_size,
    )


def _convert_rate_limiter(typed: api.RateLimiter) -> RateLimiter:
    if typed.resources is None:
        return RateLimiter(priority=typed.priority)
    resources = (
        RateLimiterResource(name=each.name, count=each.count, is_global=bool(each.is_global))
        for each in typed.resources
    )
    return RateLimiter(resources=tuple(resources), priority=typed.priority)


def _convert_sequences(typed: api.SequenceBatching) -> SequenceBatching:
    return SequenceBatching(
        max_sequence_idle_microseconds=_convert_duration(typed.max_idle),
        direct=_convert_direct(typed.direct) if typed.direct else None,
        oldest=_convert_oldest(typed.oldest) if typed.oldest else None,
    )


def _convert_direct(typed: api.DirectStrategy) -> DirectStrategy:
    percentage = typed.minimum_slot_utilization
    return DirectStrategy(
        max_queue_delay_microseconds=_convert_duration(typed.max_queue_delay),
        minimum_slot_utilization=None if percentage is None else percentage / 100,
    )


def _convert_oldest(typed: api.OldestStrategy) -> OldestStrategy:
    return OldestStrategy(
        max_candidate_sequences=typed.max_candidate_sequences,
        preferred_batch_size=typed.preferred_batch_size,
        max_queue_delay_microseconds=_convert_duration(typed.max_queue_delay),
        preserve_ordering=typed.preserve_ordering,
    )


def _convert_optimization(typed: api.Optimization) -> Optimization:
    accelerators = typed.execution_accelerators
    return Optimization(
        priority=_PRIORITIES[typed.priority] if typed.priority else None,
        cuda_graphs=typed.cuda.graphs if typed.cuda else None,
        graph_level=typed.graph.level if typed.graph else None,
        input_pinned_memory=typed.input_pinned_memory,
        output_pinned_memory=typed.output_pinned_memory,
        gpu_accelerators=_convert_accelerators(accelerators.gpu) if accelerators else None,
        cpu_accelerators=_convert_accelerators(accelerators.cpu) if accelerators else None,
    )


def _convert_accelerators(typed: tuple[api.Accelerator, ...] | None) -> tuple[Accelerator, ...] | None:
    if typed is None:
        return None
    return tuple(Accelerator(name=each.name, parameters=each.parameters) for each in typed)


def _convert_duration(duration: str | None) -> int | None:
    """Return a duration in microseconds, rounded; one that is not zero is at least 1, since 0 means no limit.

    >>> _convert_duration("500us"), _convert_duration("0.4us"), _convert_duration("0s")
    (500, 1, 0)
    """
    if duration is None:
        return None
    seconds = duration_seconds(duration)
    return round(seconds * 1e6) or int(seconds > 0)


def _convert_version_policy(typed: api.VersionPolicy | None) -> VersionPolicy | None:
    if typed is None:
        return None
    if typed.specific is not None:
        return VersionPolicy(specific=typed.specific.versions)
    if typed.latest is not None:
        return VersionPolicy(latest=typed.latest.num_versions)
    return VersionPolicy(all=True)
