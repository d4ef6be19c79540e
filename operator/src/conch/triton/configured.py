"""The values of Triton's configuration that a manifest sets, each with the field that sets it.

They win over the same values of config.pbtxt. They are those that the agent gets, in the spelling of config.pbtxt.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from conch.api.models import NamedModel
from conch.triton.config import build_model_config
from conch_contract import (
    Accelerator,
    DynamicBatching,
    InstanceGroup,
    Optimization,
    RateLimiter,
    SequenceBatching,
    TritonConfig,
    VersionPolicy,
)

# Fields of the contract, and of Triton's messages, by the field of the manifest that sets them.
_BATCHING: Final = {
    "maxQueueDelay": "max_queue_delay_microseconds",
    "preferredBatchSize": "preferred_batch_size",
    "preserveOrdering": "preserve_ordering",
}
_QUEUE_POLICY: Final = {
    "maxQueueSize": "max_queue_size",
    "defaultTimeout": "default_timeout_microseconds",
    "timeoutAction": "timeout_action",
    "allowTimeoutOverride": "allow_timeout_override",
}
_DIRECT: Final = {
    "maxQueueDelay": "max_queue_delay_microseconds",
    "minimumSlotUtilization": "minimum_slot_utilization",
}
_OLDEST: Final = {"maxCandidateSequences": "max_candidate_sequences", **_BATCHING}
# By the field of Triton's message: those of the contract and of the manifest.
_OPTIMIZATION: Final = {
    "priority": ("priority", "priority"),
    "cuda.graphs": ("cuda_graphs", "cuda.graphs"),
    "graph.level": ("graph_level", "graph.level"),
    "input_pinned_memory.enable": ("input_pinned_memory", "inputPinnedMemory"),
    "output_pinned_memory.enable": ("output_pinned_memory", "outputPinnedMemory"),
}
_ENUMERATIONS: Final = frozenset({"timeout_action", "priority"})  # whose values are names, which are not quoted


@dataclass(frozen=True)
class ConfiguredValue:
    """A value of the configuration of a model that a manifest sets.

    Attributes:
        field: its path in config.pbtxt; empty: the value is several fields in the syntax of that file.
        value: in the spelling of config.pbtxt.
        set_by: the field of the manifest below `predictor`, such as triton.maxBatchSize.
        model: name of the model in Triton.
    """

    field: str
    value: str
    set_by: str
    model: str = ""


def list_configured_values(models: Sequence[NamedModel]) -> tuple[ConfiguredValue, ...]:
    """Return the values that a manifest sets, model by model."""
    return tuple(
        ConfiguredValue(
            each.field,
            each.value,
            f"{'' if len(models) == 1 else f'models[{model.name}].'}triton.{each.set_by}",
            model.name,
        )
        for model in models
        for each in _list_values(build_model_config(model))
    )


def _list_values(config: TritonConfig) -> Iterator[ConfiguredValue]:
    """Yield the values of a model, set by fields below `triton`."""
    if config.max_batch_size is not None:
        yield ConfiguredValue("max_batch_size", str(config.max_batch_size), "maxBatchSize")
    for index, group in enumerate(config.instance_groups):
        yield ConfiguredValue(f"instance_group[{index}]", _format_group(group), f"instanceGroups[{index}]")
    if config.dynamic_batching is not None:
        found = tuple(_list_batching_values(config.dynamic_batching))
        yield from found or (ConfiguredValue("dynamic_batching", "{}", "dynamicBatching"),)
    if (sequences := config.sequence_batching) is not None:
        found = tuple(_list_sequence_values(sequences))
        yield from found or (ConfiguredValue("sequence_batching", "{}", "sequenceBatching"),)
    if config.optimization is not None:
        yield from _list_optimization_values(config.optimization)
    if config.version_policy is not None:
        yield ConfiguredValue("version_policy", _format_policy(config.version_policy), "versionPolicy")
    for name, value in config.parameters.items():
        yield ConfiguredValue(f"parameters[{name!r}]", f"string_value: {_format(value)}", f"parameters.{name}")
    if config.response_cache:
        yield ConfiguredValue("response_cache.enable", "true", "responseCache")
    if config.text:
        yield ConfiguredValue("", " ".join(config.text.split()), "config")


def _list_batching_values(batching: DynamicBatching) -> Iterator[ConfiguredValue]:
    yield from _list_set(batching, _BATCHING, "dynamic_batching", "dynamicBatching")
    if (policy := batching.queue_policy) is not None:
        path, set_by = "dynamic_batching.default_queue_policy", "dynamicBatching.queuePolicy"
        found = tuple(_list_set(policy, _QUEUE_POLICY, path, set_by))
        yield from found or (ConfiguredValue(path, "{}", set_by),)
    if (priorities := batching.priorities) is not None:
        for field, value, name in (
            ("priority_levels", priorities.levels, "levels"),
            ("default_priority_level", priorities.default_level, "defaultLevel"),
        ):
            yield ConfiguredValue(f"dynamic_batching.{field}", str(value), f"dynamicBatching.priorities.{name}")


def _list_sequence_values(sequences: SequenceBatching) -> Iterator[ConfiguredValue]:
    path, set_by = "sequence_batching", "sequenceBatching"
    yield from _list_set(sequences, {"maxIdle": "max_sequence_idle_microseconds"}, path, set_by)
    for name, strategy, fields in (("direct", sequences.direct, _DIRECT), ("oldest", sequences.oldest, _OLDEST)):
        if strategy is not None:
            found = tuple(_list_set(strategy, fields, f"{path}.{name}", f"{set_by}.{name}"))
            yield from found or (ConfiguredValue(f"{path}.{name}", "{}", f"{set_by}.{name}"),)


def _list_optimization_values(optimization: Optimization) -> Iterator[ConfiguredValue]:
    for path, (field, name) in _OPTIMIZATION.items():
        if (value := getattr(optimization, field)) is not None:
            yield ConfiguredValue(f"optimization.{path}", _format_value(field, value), f"optimization.{name}")
    for name, accelerators in (("gpu", optimization.gpu_accelerators), ("cpu", optimization.cpu_accelerators)):
        if accelerators is not None:
            path = f"optimization.execution_accelerators.{name}_execution_accelerator"
            value = f"[{', '.join(map(_format_accelerator, accelerators))}]"
            yield ConfiguredValue(path, value, f"optimization.executionAccelerators.{name}")


def _list_set(message: object, fields: dict[str, str], path: str, set_by: str) -> Iterator[ConfiguredValue]:
    """Yield the set fields of a message."""
    for name, field in fields.items():
        if (value := getattr(message, field)) is not None:
            yield ConfiguredValue(f"{path}.{field}", _format_value(field, value), f"{set_by}.{name}")


def _format_accelerator(accelerator: Accelerator) -> str:
    """Return an execution accelerator.

    >>> _format_accelerator(Accelerator(name="tensorrt", parameters={"precision_mode": "FP16"}))
    '{ name: "tensorrt" parameters { key: "precision_mode" value: "FP16" } }'
    """
    parameters = "".join(
        f" parameters {{ key: {_format(key)} value: {_format(value)} }}"
        for key, value in accelerator.parameters.items()
    )
    return f"{{ name: {_format(accelerator.name)}{parameters} }}"


def _format_rate_limiter(limiter: RateLimiter) -> str:
    """Return the set fields of a rate limiter."""
    resources = [
        f"resources {{ name: {_format(each.name)}{' global: true' if each.is_global else ''} count: {each.count} }}"
        for each in limiter.resources or ()
    ]
    priority = [f"priority: {limiter.priority}"] if limiter.priority is not None else []
    return f"{{ {' '.join((*resources, *priority))} }}" if resources or priority else "{}"


def _format_group(group: InstanceGroup) -> str:
    """Return the set fields of an instance group.

    >>> _format_group(InstanceGroup(kind="GPU", count=2, gpus=(0, 1)))
    'count: 2 gpus: [0, 1] kind: KIND_GPU'
    """
    kind = f"KIND_{group.kind}" if group.kind is not None else None
    gpus = _format(group.gpus) if group.gpus is not None else None
    values = {"count": group.count, "gpus": gpus, "kind": kind}
    found = [f"{field}: {value}" for field, value in values.items() if value is not None]
    limiter = [f"rate_limiter {_format_rate_limiter(group.rate_limiter)}"] if group.rate_limiter else []
    return " ".join((*found, *limiter)) or "{}"


def _format_policy(policy: VersionPolicy) -> str:
    """Return the choice of versions.

    >>> _format_policy(VersionPolicy(specific=(1, 3)))
    'specific { versions: 1 versions: 3 }'
    """
    if policy.all:
        return "all { }"
    if policy.specific:
        versions = " ".join(f"versions: {version}" for version in policy.specific)
        return f"specific {{ {versions} }}"
    return f"latest {{ num_versions: {policy.latest} }}"


def _format_value(field: str, value: Any) -> str:
    return str(value) if field in _ENUMERATIONS else _format(value)


def _format(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
