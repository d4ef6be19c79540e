"""The merge of the manifest's instance groups into those of config.pbtxt.

The manifest has four fields of a group. Triton has more (host_policy, profile, ...): a group of the manifest takes
them, and what its rateLimiter leaves unset, from the group of config.pbtxt that it changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup, ModelRateLimiter

from conch_agent.reasons import Failure, Reason
from conch_contract.manifest import InstanceGroup, RateLimiter

_SPEC_FIELDS: Final = frozenset({"kind", "count", "gpus"})


def merge_groups(
    file: Sequence[ModelInstanceGroup], settings: Sequence[InstanceGroup], uri: str
) -> list[ModelInstanceGroup]:
    """Return the manifest's groups, each with the fields of its group in config.pbtxt.

    Groups with the same index belong together. A single group of the file is the base of all groups of the manifest.

    Args:
        file: The groups of config.pbtxt.
        settings: The groups of the manifest.
        uri: The storageUri, with which messages begin.

    Raises:
        Failure: ConfigConflict, if the numbers of groups differ and a field of the file would be lost.
    """
    if len(file) == len(settings):
        return [_merge_group(group, base) for group, base in zip(settings, file, strict=True)]
    if len(file) == 1:
        groups = [_merge_group(group, file[0]) for group in settings]
        for group in groups[1:]:
            group.name = ""  # Triton gives each group without a name its own name
        return groups
    lost = sorted({field.name for group in file for field, _ in group.ListFields()} - _SPEC_FIELDS - {"name"})
    if lost:
        message = (
            f"{uri}: instance_group in config.pbtxt has {len(file)} groups with {', '.join(lost)}, and "
            f"triton.instanceGroups has {len(settings)}: which of them take these fields is undefined. "
            f"Write {len(file)} groups in instanceGroups, or remove it and set kind, count and gpus in config.pbtxt."
        )
        raise Failure(Reason.CONFIG_CONFLICT, message)
    return [_merge_group(group, None) for group in settings]


def _merge_group(settings: InstanceGroup, base: ModelInstanceGroup | None) -> ModelInstanceGroup:
    group = ModelInstanceGroup()
    if base is None:
        group.count = 1
    else:
        group.CopyFrom(base)
    if settings.kind is not None:
        group.kind = ModelInstanceGroup.Kind.Value(f"KIND_{settings.kind}")
        if settings.kind == "CPU":
            del group.gpus[:]  # Triton refuses a CPU group with GPUs
    if settings.count is not None:
        group.count = settings.count
    if settings.gpus is not None:
        group.gpus[:] = settings.gpus
    if settings.rate_limiter is not None:
        group.rate_limiter.SetInParent()
        _merge_rate_limiter(group.rate_limiter, settings.rate_limiter)
    return group


def _merge_rate_limiter(limiter: ModelRateLimiter, settings: RateLimiter) -> None:
    if settings.resources is not None:
        del limiter.resources[:]
        for each in settings.resources:
            limiter.resources.add(name=each.name, count=each.count, **{"global": each.is_global})  # a word of Python
    if settings.priority is not None:
        limiter.priority = settings.priority
