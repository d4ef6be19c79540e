"""From the typed fields to the contract's TritonConfig, which the agent merges into config.pbtxt."""

from conch import api
from conch.api import duration_seconds
from conch_contract import DynamicBatching, InstanceGroup, TritonConfig, VersionPolicy


def model_config(typed: api.Triton) -> TritonConfig:
    """Return what was typed, in Triton's units. What is absent stays absent: Triton completes it."""
    return TritonConfig(
        max_batch_size=typed.max_batch_size,
        instance_groups=tuple(
            InstanceGroup(kind=group.kind, count=group.count, gpus=group.gpus) for group in typed.instance_groups
        ),
        dynamic_batching=_batching(typed.dynamic_batching),
        version_policy=_versions(typed.version_policy),
    )


def _batching(typed: api.DynamicBatching | None) -> DynamicBatching | None:
    if typed is None:
        return None
    return DynamicBatching(
        max_queue_delay_microseconds=round(duration_seconds(typed.max_queue_delay) * 1e6),
        preferred_batch_size=typed.preferred_batch_size,
        preserve_ordering=typed.preserve_ordering,
    )


def _versions(typed: api.VersionPolicy | None) -> VersionPolicy | None:
    if typed is None:
        return None
    if typed.specific is not None:
        return VersionPolicy(specific=typed.specific.versions)
    if typed.latest is not None:
        return VersionPolicy(latest=typed.latest.num_versions)
    return VersionPolicy(all=True)
