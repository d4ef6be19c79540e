"""The values of Triton's configuration that a manifest sets, each with the field that sets it.

They win over the same values of config.pbtxt. They are those that the agent gets, in the spelling of config.pbtxt.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from conch.api.models import NamedModel
from conch.triton.config import build_model_config
from conch_contract import DynamicBatching, InstanceGroup, QueuePolicy, TritonConfig, VersionPolicy

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


def _list_set(
    message: DynamicBatching | QueuePolicy, fields: dict[str, str], path: str, set_by: str
) -> Iterator[ConfiguredValue]:
    """Yield the set fields of a message."""
    for name, field in fields.items():
        value = getattr(message, field)
        if value is not None:
            text = value if field == "timeout_action" else _format(value)  # the name of an enumeration is not quoted
            yield ConfiguredValue(f"{path}.{field}", text, f"{set_by}.{name}")


def _format_group(group: InstanceGroup) -> str:
    """Return the set fields of an instance group.

    >>> _format_group(InstanceGroup(kind="GPU", count=2, gpus=(0, 1)))
    'count: 2 gpus: [0, 1] kind: KIND_GPU'
    """
    kind = f"KIND_{group.kind}" if group.kind is not None else None
    gpus = _format(group.gpus) if group.gpus is not None else None
    values = {"count": group.count, "gpus": gpus, "kind": kind}
    return " ".join(f"{field}: {value}" for field, value in values.items() if value is not None) or "{}"


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


def _format(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
