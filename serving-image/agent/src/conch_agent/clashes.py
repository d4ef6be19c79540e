"""Fields of the manifest and of config.pbtxt that exclude one another.

Triton 2.51 refuses each combination, most of them with "failed to poll from model repository" and no reason. A message
here names both sides and what to remove. What Triton accepts is no clash: maxBatchSize 0 with dynamic_batching, or
preserveOrdering with a DELAY that has no timeout.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelQueuePolicy

from conch_agent.reasons import Failure, Reason
from conch_contract.manifest import ModelSource, TritonConfig

_TYPED: Final = "spec.predictor.triton."
_ENSEMBLE: Final = "ensemble_scheduling"


def check_clashes(file: ModelConfig, source: ModelSource, backend: str) -> None:
    """Raise ConfigConflict if the manifest sets a field that config.pbtxt excludes.

    Args:
        file: The user's config.pbtxt.
        source: The model as the manifest has it.
        backend: The backend of its format; empty where config.pbtxt chooses.
    """
    if backend and file.WhichOneof("scheduling_choice") == _ENSEMBLE:
        problem = (
            f"modelFormat.name is {source.format}, and config.pbtxt has {_ENSEMBLE}: an ensemble has no backend. Set "
            f"modelFormat.name to triton, or remove {_ENSEMBLE} from config.pbtxt"
        )
    else:
        problem = next(_clashes(file, source.config), "")
    if problem:
        raise Failure(Reason.CONFIG_CONFLICT, f"{source.storage_uri}: {problem}.")


def _clashes(file: ModelConfig, typed: TritonConfig) -> Iterator[str]:
    yield from _scheduling(file, typed)
    yield from _batch_sizes(file, typed)
    yield from _ordering(file, typed)


def _scheduling(file: ModelConfig, typed: TritonConfig) -> Iterator[str]:
    """The scheduler of a model is one of three, and an ensemble has no instances of its own."""
    scheduler = file.WhichOneof("scheduling_choice")
    if typed.dynamic_batching is not None and scheduler in {"sequence_batching", _ENSEMBLE}:
        yield (
            f"{_TYPED}dynamicBatching is set, and config.pbtxt has {scheduler}; a model has one of them. Remove "
            f"dynamicBatching from the InferenceService, or {scheduler} from config.pbtxt"
        )
    if typed.instance_groups and scheduler == _ENSEMBLE:
        yield (
            f"{_TYPED}instanceGroups is set, and config.pbtxt has {_ENSEMBLE}: an ensemble has no instances "
            "of its own. Remove instanceGroups from the InferenceService"
        )


def _batch_sizes(file: ModelConfig, typed: TritonConfig) -> Iterator[str]:
    """The largest batch bounds the preferred ones; one side may be the manifest's, the other the file's."""
    batching = typed.dynamic_batching
    sizes = batching.preferred_batch_size if batching else None
    largest = typed.max_batch_size
    oldest = file.sequence_batching.oldest.preferred_batch_size
    if largest is not None and max(oldest, default=0) > largest:
        yield (
            f"{_TYPED}maxBatchSize is {largest}, and preferred_batch_size of sequence_batching in config.pbtxt has "
            f"{max(oldest)}. Raise maxBatchSize, or lower preferred_batch_size in config.pbtxt"
        )
    preferred = max(file.dynamic_batching.preferred_batch_size, default=0)
    if largest is not None and sizes is None and preferred > largest:
        yield (
            f"{_TYPED}maxBatchSize is {largest}, and preferred_batch_size in config.pbtxt has {preferred}. Raise "
            "maxBatchSize, or set dynamicBatching.preferredBatchSize to sizes up to it"
        )
    elif largest is None and sizes and 0 < file.max_batch_size < max(sizes):
        yield (
            f"{_TYPED}dynamicBatching.preferredBatchSize has {max(sizes)}, and max_batch_size in config.pbtxt is "
            f"{file.max_batch_size}. Set maxBatchSize to at least {max(sizes)}, or lower preferredBatchSize"
        )


def _ordering(file: ModelConfig, typed: TritonConfig) -> Iterator[str]:
    """Ordered responses exclude priorities and delayed requests (Triton's ModelDynamicBatching)."""
    if not (typed.dynamic_batching and typed.dynamic_batching.preserve_ordering):
        return
    batching = file.dynamic_batching
    policies = (batching.default_queue_policy, *batching.priority_queue_policy.values())
    if batching.priority_levels > 1:
        obstacle = f"priority_levels: {batching.priority_levels}"
    elif any(
        policy.timeout_action == ModelQueuePolicy.DELAY and policy.default_timeout_microseconds for policy in policies
    ):
        obstacle = "timeout_action: DELAY"
    else:
        return
    yield (
        f"{_TYPED}dynamicBatching.preserveOrdering is true, and config.pbtxt has {obstacle}; ordered responses exclude "
        f"it. Remove preserveOrdering from the InferenceService, or {obstacle.partition(':')[0]} from config.pbtxt"
    )
