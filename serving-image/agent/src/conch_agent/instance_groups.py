"""Instance groups of the manifest, merged into those of config.pbtxt.

The manifest has three fields of a group; Triton has more (rate_limiter, host_policy, profile, ...), which a group of
the manifest takes from the group of config.pbtxt that it changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup

from conch_agent.reasons import Failure, Reason
from conch_contract.manifest import InstanceGroup

_TYPED: Final = frozenset({"kind", "count", "gpus"})


def merge_groups(
    file: Sequence[ModelInstanceGroup], typed: Sequence[InstanceGroup], uri: str
) -> list[ModelInstanceGroup]:
    """Return the manifest's groups, each with the fields of its group in config.pbtxt.

    Groups belong together by their place. A single group of the file is the base of every group of the manifest.

    Raises:
        Failure: ConfigConflict, where the numbers of groups differ and a field of the file would be lost.
    """
    if len(file) == len(typed):
        return [_merge(group, base) for group, base in zip(typed, file, strict=True)]
    if len(file) == 1:
        groups = [_merge(group, file[0]) for group in typed]
        for group in groups[1:]:
            group.name = ""  # Triton names groups without a name, each by another
        return groups
    lost = sorted({field.name for group in file for field, _ in group.ListFields()} - _TYPED - {"name"})
    if lost:
        message = (
            f"{uri}: instance_group in config.pbtxt has {len(file)} groups with {', '.join(lost)}, and "
            f"spec.predictor.triton.instanceGroups has {len(typed)}: which of them take these fields is undefined. "
            f"Write {len(file)} groups in instanceGroups, or remove it and set kind, count and gpus in config.pbtxt."
        )
        raise Failure(Reason.CONFIG_CONFLICT, message)
    return [_merge(group, None) for group in typed]


def _merge(typed: InstanceGroup, base: ModelInstanceGroup | None) -> ModelInstanceGroup:
    group = ModelInstanceGroup()
    if base is None:
        group.count = 1
    else:
        group.CopyFrom(base)
    if typed.kind is not None:
        group.kind = ModelInstanceGroup.Kind.Value(f"KIND_{typed.kind}")
        if typed.kind == "CPU":
            del group.gpus[:]  # Triton refuses a CPU group with GPUs
    if typed.count is not None:
        group.count = typed.count
    if typed.gpus is not None:
        group.gpus[:] = typed.gpus
    return group
