"""From the typed fields to the contract's TritonConfig, which the agent merges into config.pbtxt."""

from collections.abc import Mapping
from typing import Final, Literal

from conch import api
from conch.api import duration_seconds
from conch.api.models import REPOSITORY, NamedModel
from conch_contract import DynamicBatching, InstanceGroup, Priorities, QueuePolicy, TritonConfig, VersionPolicy

_TIMEOUT_ACTIONS: Final[Mapping[str, Literal["REJECT", "DELAY"]]] = {"Reject": "REJECT", "Delay": "DELAY"}


def build_model_config(model: NamedModel) -> TritonConfig:
    """Return the typed fields of a model in Triton's units.

    An unset field stays unset: config.pbtxt or Triton decides it.
    """
    typed = model.triton
    return TritonConfig(
        max_batch_size=typed.max_batch_size,
        instance_groups=tuple(
            InstanceGroup(kind=group.kind, count=group.count, gpus=group.gpus) for group in typed.instance_groups
        ),
        dynamic_batching=_convert_batching(typed.dynamic_batching),
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
