"""From the typed fields to the contract's TritonConfig, which the agent merges into config.pbtxt."""

from typing import Final

from conch import api
from conch.api import duration_seconds
from conch_contract import DynamicBatching, InstanceGroup, TritonConfig, VersionPolicy

_MODEL_CONFIG: Final = ("maxBatchSize", "instanceGroups", "dynamicBatching", "versionPolicy")


def build_model_config(typed: api.Triton) -> TritonConfig:
    """Return the typed fields in Triton's units. An unset field stays unset: config.pbtxt or Triton decides it."""
    return TritonConfig(
        max_batch_size=typed.max_batch_size,
        instance_groups=tuple(
            InstanceGroup(kind=group.kind, count=group.count, gpus=group.gpus) for group in typed.instance_groups
        ),
        dynamic_batching=_convert_batching(typed.dynamic_batching),
        version_policy=_convert_version_policy(typed.version_policy),
    )


def list_configured_fields(typed: api.Triton) -> tuple[str, ...]:
    """Return the fields of a manifest that win over the same fields of config.pbtxt, as paths below `triton`."""
    wire = typed.to_wire()
    fields = [field for field in _MODEL_CONFIG if field in wire]
    return tuple(
        f"triton.{field}{f'.{inner}' if inner else ''}"
        for field in fields
        for inner in (wire[field] if field == "dynamicBatching" and wire[field] else [""])
    )


def _convert_batching(typed: api.DynamicBatching | None) -> DynamicBatching | None:
    if typed is None:
        return None
    delay = typed.max_queue_delay
    return DynamicBatching(
        max_queue_delay_microseconds=None if delay is None else round(duration_seconds(delay) * 1e6),
        preferred_batch_size=typed.preferred_batch_size,
        preserve_ordering=typed.preserve_ordering,
    )


def _convert_version_policy(typed: api.VersionPolicy | None) -> VersionPolicy | None:
    if typed is None:
        return None
    if typed.specific is not None:
        return VersionPolicy(specific=typed.specific.versions)
    if typed.latest is not None:
        return VersionPolicy(latest=typed.latest.num_versions)
    return VersionPolicy(all=True)
