"""The fields of the manifest in the syntax of config.pbtxt, which win over those of the file.

A message is merged field by field, and a map by key; a list and a single value replace those of the file. A value that
is the default of its field (0, false) changes nothing, which the syntax does not distinguish from an absent one.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic.alias_generators import to_camel
from tritonclient.grpc.model_config_pb2 import ModelConfig

from conch_agent.optimization import merge_optimization
from conch_agent.overrides import list_fields
from conch_agent.reasons import Failure, Reason
from conch_agent.sequences import merge_sequences
from conch_contract.manifest import TritonConfig
from conch_contract.sentences import join_words

PLACE: Final = "triton.config"  # of predictor, or of one of models
# The typed fields of the manifest by the field of ModelConfig that they set.
_TYPED: Final = {
    "max_batch_size": "max_batch_size",
    "instance_group": "instance_groups",
    "dynamic_batching": "dynamic_batching",
    "version_policy": "version_policy",
}


def check_patch(patch: ModelConfig, settings: TritonConfig) -> None:
    """Refuse fields that the manifest sets elsewhere.

    Args:
        patch: The fields in the syntax of config.pbtxt.
        settings: The fields of the manifest.

    Raises:
        Failure: InvalidConfig for a name, ConfigConflict for a field that is also a typed one.
    """
    if patch.name:
        message = f"{PLACE} has name: remove it, and set model.name or models[].name, under which clients call it."
        raise Failure(Reason.INVALID_CONFIG, message)
    fields = [field.name for field, _ in patch.ListFields() if field.name in _TYPED]
    twice = {name: _TYPED[name] for name in fields if getattr(settings, _TYPED[name]) not in {None, ()}}
    twice |= {name: name.partition(".")[0] for name in _list_common(patch, settings)}
    if twice:
        words = join_words((f"{name} ({to_camel(typed)})" for name, typed in twice.items()), "and")
        message = f"{PLACE} has {words}, and the field of the InferenceService is set too. Keep one of them."
        raise Failure(Reason.CONFIG_CONFLICT, message)


def _list_common(patch: ModelConfig, settings: TritonConfig) -> list[str]:
    """Return the fields of the patch that typed ones set too, in messages of which the manifest has some fields."""
    typed = ModelConfig()
    if settings.sequence_batching is not None:
        merge_sequences(typed.sequence_batching, settings.sequence_batching)
    if settings.optimization is not None:
        merge_optimization(typed.optimization, settings.optimization)
    set_fields = {pair.field for pair in list_fields(typed)}
    found = [pair.field for pair in list_fields(patch) if pair.field in set_fields]
    strategy, typed_one = (each.sequence_batching.WhichOneof("strategy_choice") for each in (patch, typed))
    return [*found, f"sequence_batching.{strategy}"] if strategy and typed_one not in {None, strategy} else found


def merge_patch(target: Any, patch: Any) -> None:
    """Merge the set fields of a message into another one of the same type.

    Args:
        target: The message that is changed.
        patch: The fields that win.
    """
    for field, value in patch.ListFields():
        if field.message_type and field.message_type.GetOptions().map_entry:
            _merge_map(getattr(target, field.name), value)
        elif field.is_repeated:
            target.ClearField(field.name)
            getattr(target, field.name).extend(value)
        elif field.message_type:
            getattr(target, field.name).SetInParent()
            merge_patch(getattr(target, field.name), value)
        else:
            setattr(target, field.name, value)


def _merge_map(target: Any, patch: Any) -> None:
    for key, item in patch.items():
        if hasattr(item, "ListFields"):
            target[key].CopyFrom(item)
        else:
            target[key] = item
