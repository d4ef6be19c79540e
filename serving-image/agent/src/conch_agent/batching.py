"""Dynamic batching: the fields of the manifest, merged into those of config.pbtxt."""

from __future__ import annotations

from tritonclient.grpc.model_config_pb2 import ModelDynamicBatching, ModelQueuePolicy

from conch_contract import DynamicBatching, Priorities, QueuePolicy


def merge_batching(batching: ModelDynamicBatching, settings: DynamicBatching) -> None:
    """Merge the fields that are set into a message.

    Args:
        batching: The message, which is changed.
        settings: The fields of the manifest.
    """
    if settings.max_queue_delay_microseconds is not None:
        batching.max_queue_delay_microseconds = settings.max_queue_delay_microseconds
    if settings.preferred_batch_size is not None:
        batching.preferred_batch_size[:] = settings.preferred_batch_size
    if settings.preserve_ordering is not None:
        batching.preserve_ordering = settings.preserve_ordering
    if settings.queue_policy is not None:
        _merge_queue_policy(batching.default_queue_policy, settings.queue_policy)
    if settings.priorities is not None:
        _merge_priorities(batching, settings.priorities)


def _merge_priorities(batching: ModelDynamicBatching, priorities: Priorities) -> None:
    """Merge the levels. Policies of config.pbtxt for levels that there are no longer are dropped."""
    batching.priority_levels = priorities.levels
    batching.default_priority_level = priorities.default_level
    for level in [level for level in batching.priority_queue_policy if level > priorities.levels]:
        del batching.priority_queue_policy[level]


def _merge_queue_policy(queue: ModelQueuePolicy, policy: QueuePolicy) -> None:
    queue.SetInParent()
    if policy.timeout_action is not None:
        queue.timeout_action = ModelQueuePolicy.TimeoutAction.Value(policy.timeout_action)
    if policy.default_timeout_microseconds is not None:
        queue.default_timeout_microseconds = policy.default_timeout_microseconds
    if policy.allow_timeout_override is not None:
        queue.allow_timeout_override = policy.allow_timeout_override
    if policy.max_queue_size is not None:
        queue.max_queue_size = policy.max_queue_size
