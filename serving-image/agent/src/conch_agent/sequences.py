"""Sequence batching: the fields of the manifest, merged into those of config.pbtxt."""

from __future__ import annotations

from tritonclient.grpc.model_config_pb2 import ModelSequenceBatching

from conch_contract import DirectStrategy, OldestStrategy, SequenceBatching


def merge_sequences(batching: ModelSequenceBatching, settings: SequenceBatching) -> None:
    """Merge the fields that are set into a message. A strategy replaces another one of the message.

    Args:
        batching: The message, which is changed.
        settings: The fields of the manifest.
    """
    if settings.max_sequence_idle_microseconds is not None:
        batching.max_sequence_idle_microseconds = settings.max_sequence_idle_microseconds
    if settings.direct is not None:
        batching.direct.SetInParent()
        _merge_direct(batching.direct, settings.direct)
    if settings.oldest is not None:
        batching.oldest.SetInParent()
        _merge_oldest(batching.oldest, settings.oldest)


def _merge_direct(direct: ModelSequenceBatching.StrategyDirect, settings: DirectStrategy) -> None:
    if settings.max_queue_delay_microseconds is not None:
        direct.max_queue_delay_microseconds = settings.max_queue_delay_microseconds
    if settings.minimum_slot_utilization is not None:
        direct.minimum_slot_utilization = settings.minimum_slot_utilization


def _merge_oldest(oldest: ModelSequenceBatching.StrategyOldest, settings: OldestStrategy) -> None:
    if settings.max_candidate_sequences is not None:
        oldest.max_candidate_sequences = settings.max_candidate_sequences
    if settings.preferred_batch_size is not None:
        oldest.preferred_batch_size[:] = settings.preferred_batch_size
    if settings.max_queue_delay_microseconds is not None:
        oldest.max_queue_delay_microseconds = settings.max_queue_delay_microseconds
    if settings.preserve_ordering is not None:
        oldest.preserve_ordering = settings.preserve_ordering
