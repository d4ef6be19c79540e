"""Fields of the manifest and of config.pbtxt that exclude one another.

Triton 2.51 refuses each combination, most of them with "failed to poll from model repository" and no reason. A message
here names both fields and the one to remove. Triton accepts maxBatchSize 0 with dynamic_batching, and preserveOrdering
with a DELAY that has no timeout: these are no clashes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pydantic.alias_generators import to_camel
from tritonclient.grpc.model_config_pb2 import (
    ModelConfig,
    ModelDynamicBatching,
    ModelQueuePolicy,
    ModelSequenceBatching,
)

from conch_agent.batching import merge_batching
from conch_agent.optimization import find_unused
from conch_agent.reasons import Failure, Reason
from conch_agent.sequences import merge_sequences
from conch_contract.manifest import ModelSource, TritonConfig

_SPEC: Final = "triton."  # of predictor, or of one of models
_ENSEMBLE: Final = "ensemble_scheduling"


def check_clashes(file: ModelConfig, source: ModelSource, backend: str) -> None:
    """Refuse a manifest that sets a field which config.pbtxt excludes.

    Args:
        file: The user's config.pbtxt.
        source: The model in the manifest.
        backend: The backend of its format; empty: config.pbtxt names it.

    Raises:
        Failure: ConfigConflict.
    """
    if backend and file.WhichOneof("scheduling_choice") == _ENSEMBLE:
        problem = (
            f"modelFormat.name is {source.format}, and config.pbtxt has {_ENSEMBLE}: an ensemble has no backend. Set "
            f"modelFormat.name to triton, or remove {_ENSEMBLE} from config.pbtxt"
        )
    elif backend and source.config.optimization and (unused := find_unused(source.config.optimization, backend)):
        problem = (
            f"{_SPEC}optimization.{unused} is set, and the backend of the format {source.format}, {backend}, ignores "
            "it. Remove it from the InferenceService"
        )
    else:
        problem = next(_find_clashes(file, source.config), "")
    if problem:
        raise Failure(Reason.CONFIG_CONFLICT, f"{source.storage_uri}: {problem}.")


def _find_clashes(file: ModelConfig, settings: TritonConfig) -> Iterator[str]:
    yield from _check_scheduling(file, settings)
    yield from _check_batch_sizes(file, settings)
    yield from _check_sequences(file, settings)
    yield from _check_ordering(file, settings)
    yield from _check_response_cache(file, settings)


def _check_scheduling(file: ModelConfig, settings: TritonConfig) -> Iterator[str]:
    """Yield clashes of the scheduler: a model has one of three, and an ensemble has no instances of its own."""
    scheduler = file.WhichOneof("scheduling_choice")
    if settings.dynamic_batching is not None and settings.sequence_batching is not None:
        yield (
            f"{_SPEC}dynamicBatching and {_SPEC}sequenceBatching are set; a model has one of them. Remove one of them "
            "from the InferenceService"
        )
    for name in ("dynamic_batching", "sequence_batching"):
        if getattr(settings, name) is not None and scheduler not in {None, name}:
            typed = to_camel(name)
            yield (
                f"{_SPEC}{typed} is set, and config.pbtxt has {scheduler}; a model has one of them. Remove "
                f"{typed} from the InferenceService, or {scheduler} from config.pbtxt"
            )
    for typed, value in (("instanceGroups", settings.instance_groups), ("optimization", settings.optimization)):
        if value and scheduler == _ENSEMBLE:
            yield (
                f"{_SPEC}{typed} is set, and config.pbtxt has {_ENSEMBLE}: an ensemble has no instances "
                f"of its own. Remove {typed} from the InferenceService"
            )


def _check_batch_sizes(file: ModelConfig, settings: TritonConfig) -> Iterator[str]:
    """Yield clashes of batch sizes: max_batch_size is the upper bound of the preferred sizes."""
    batching = settings.dynamic_batching
    sizes = batching.preferred_batch_size if batching else None
    largest = settings.max_batch_size
    preferred = max(file.dynamic_batching.preferred_batch_size, default=0)
    if largest is not None and sizes is None and preferred > largest:
        yield (
            f"{_SPEC}maxBatchSize is {largest}, and preferred_batch_size in config.pbtxt has {preferred}. Raise "
            "maxBatchSize, or set dynamicBatching.preferredBatchSize to sizes up to it"
        )
    elif largest is None and sizes and 0 < file.max_batch_size < max(sizes):
        yield (
            f"{_SPEC}dynamicBatching.preferredBatchSize has {max(sizes)}, and max_batch_size in config.pbtxt is "
            f"{file.max_batch_size}. Set maxBatchSize to at least {max(sizes)}, or lower preferredBatchSize"
        )


def _check_sequences(file: ModelConfig, settings: TritonConfig) -> Iterator[str]:
    """Yield clashes of the batch sizes of sequences with max_batch_size."""
    merged = ModelSequenceBatching()
    merged.CopyFrom(file.sequence_batching)
    if settings.sequence_batching is not None:
        merge_sequences(merged, settings.sequence_batching)
    largest = file.max_batch_size if settings.max_batch_size is None else settings.max_batch_size
    size = max(merged.oldest.preferred_batch_size, default=0)
    if size <= largest or (settings.max_batch_size is None and largest == 0):  # Triton may complete an absent one
        return
    oldest = settings.sequence_batching.oldest if settings.sequence_batching else None
    if oldest and oldest.preferred_batch_size:
        place = "config.pbtxt has max_batch_size" if settings.max_batch_size is None else "maxBatchSize is"
        yield (
            f"{_SPEC}sequenceBatching.oldest.preferredBatchSize has {size}, and {place} {largest}. Set maxBatchSize to "
            f"at least {size}, or lower preferredBatchSize"
        )
    elif settings.max_batch_size is not None:
        yield (
            f"{_SPEC}maxBatchSize is {largest}, and preferred_batch_size of sequence_batching in config.pbtxt has "
            f"{size}. Raise maxBatchSize, or lower preferred_batch_size in config.pbtxt"
        )


def _check_ordering(file: ModelConfig, settings: TritonConfig) -> Iterator[str]:
    """Yield clashes of ordered responses with priorities and delayed requests (Triton's ModelDynamicBatching)."""
    if settings.dynamic_batching is None:
        return
    merged = ModelDynamicBatching()
    merged.CopyFrom(file.dynamic_batching)
    merge_batching(merged, settings.dynamic_batching)
    obstacle = _find_disorder(merged)
    if not merged.preserve_ordering or not obstacle:
        return
    is_of_file = _find_disorder(file.dynamic_batching) == obstacle
    if settings.dynamic_batching.preserve_ordering and is_of_file:
        yield (
            f"{_SPEC}dynamicBatching.preserveOrdering is true, and config.pbtxt has {obstacle}; ordered responses "
            "exclude it. Remove preserveOrdering from the InferenceService, or "
            f"{obstacle.partition(':')[0]} from config.pbtxt"
        )
    elif not is_of_file:
        ordering = "preserveOrdering" if settings.dynamic_batching.preserve_ordering else "config.pbtxt"
        yield (
            f"{_SPEC}dynamicBatching makes {obstacle}, and {ordering} orders the responses, which excludes it. Set "
            "preserveOrdering to false, or remove priorities and the timeoutAction Delay from the InferenceService, or "
            "timeout_action from config.pbtxt"
        )


def _check_response_cache(file: ModelConfig, settings: TritonConfig) -> Iterator[str]:
    """Yield clashes of the response cache: its key is the inputs, and its value one response."""
    if settings.sequence_batching is not None or file.WhichOneof("scheduling_choice") == "sequence_batching":
        obstacle, cause = "sequence_batching", "an answer depends on the earlier requests of its sequence"
        place = "config.pbtxt has" if settings.sequence_batching is None else "the InferenceService sets"
    elif file.model_transaction_policy.decoupled:
        obstacle, cause = "model_transaction_policy { decoupled: true }", "a request has any number of responses"
        place = "config.pbtxt has"
    else:
        return
    if settings.response_cache:
        yield (
            f"{_SPEC}responseCache is set, and {place} {obstacle}: {cause}, so Triton cannot cache it. Remove "
            "responseCache from the InferenceService"
        )
    elif file.response_cache.enable:
        yield (
            f"config.pbtxt has response_cache, and {place} {obstacle}: {cause}, so Triton cannot cache it. Remove "
            "response_cache from config.pbtxt"
        )


def _find_disorder(batching: ModelDynamicBatching) -> str:
    """Return the field by which requests are run in another order than they arrive; empty: none."""
    policies = (batching.default_queue_policy, *batching.priority_queue_policy.values())
    if batching.priority_levels > 1:
        return f"priority_levels: {batching.priority_levels}"
    delays = (
        policy.timeout_action == ModelQueuePolicy.DELAY for policy in policies if policy.default_timeout_microseconds
    )
    return "timeout_action: DELAY" if any(delays) else ""
