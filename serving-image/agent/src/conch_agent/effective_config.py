"""The configuration that Triton uses for a model, and the origin of each of its values.

The written configuration is what the agent lays out for Triton. A value that Triton uses has the origin of the written
one, if there is one that is equal; else it is Triton's own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Final

from tritonclient.grpc.model_config_pb2 import ModelConfig

from conch_agent.config import CONTENT_PARAMETER
from conch_agent.overrides import Pair, list_fields, shorten
from conch_contract import ConfigOrigin, ConfigValue, ModelReport

_MOST_VALUES: Final = 16  # of a model
_MOST_VALUES_OF_POD: Final = 256
_LONGEST_FIELD: Final = 120  # characters
_LONGEST_VALUE: Final = 80
# Of the model's identity or interface, or long: the steps of an ensemble are its program.
_OMITTED: Final = ("name", "input", "output", "ensemble_scheduling")
# Of more than 16 values those of Triton are left out first.
_ORDER: Final[Mapping[str, int]] = {
    ConfigOrigin.SPEC: 0,
    ConfigOrigin.FILE: 1,
    ConfigOrigin.CONCH: 2,
    ConfigOrigin.TRITON: 3,
}

WrittenValues = dict[str, dict[str, str]]
"""The values of a written configuration by field, by origin; it is the same after a way through JSON."""


def find_written_values(config: ModelConfig, parts: Mapping[ConfigOrigin, ModelConfig]) -> WrittenValues:
    """Return the values of a written configuration by origin and field.

    A value that no part has is Conch's, such as one instance of a group without a count.

    Args:
        config: The configuration.
        parts: What it is merged from, by origin; an earlier part wins over a later one.
    """
    known = {origin: {pair.field: pair.value for pair in _list_reported(part)} for origin, part in parts.items()}
    written: WrittenValues = {}
    for pair in _list_reported(config):
        found = (origin for origin, values in known.items() if values.get(pair.field) == pair.value)
        written.setdefault(next(found, ConfigOrigin.CONCH).value, {})[pair.field] = pair.value
    return written


def build_config_values(config: ModelConfig, written: WrittenValues) -> tuple[ConfigValue, ...]:
    """Return the values that Triton uses, each with its origin: at most 16, those that a user sets first.

    An item of a list or map is one value if all of it has one origin.

    Args:
        config: The configuration, as Triton has completed it.
        written: The values of the written configuration.
    """
    origins = {(field, value): origin for origin, values in written.items() for field, value in values.items()}
    found: list[ConfigValue] = []
    for item, each in groupby(_list_reported(config), key=lambda pair: pair.item):
        pairs = tuple(each)
        of_pairs = [origins.get((pair.field, pair.value), ConfigOrigin.TRITON.value) for pair in pairs]
        if item and len(set(of_pairs)) == 1:
            found.append(_build_value(item, _join_item(item, pairs), of_pairs[0]))
        else:
            found += [
                _build_value(pair.field, pair.value, origin) for pair, origin in zip(pairs, of_pairs, strict=True)
            ]
    return tuple(sorted(found, key=lambda value: _ORDER[value.origin])[:_MOST_VALUES])


def limit_config(models: Iterable[ModelReport], first: Collection[str]) -> tuple[ModelReport, ...]:
    """Return the reports of a pod's models with at most 256 values of configurations: the last models have none.

    Args:
        models: The reports.
        first: Names of the models whose configurations come before those of others, such as the entry of a repository.
    """
    models, left = tuple(models), _MOST_VALUES_OF_POD
    omitted: set[str] = set()
    for model in sorted(models, key=lambda model: model.name not in first):
        left -= len(model.config)
        if left < 0:
            omitted.add(model.name)
    return tuple(model.model_copy(update={"config": ()}) if model.name in omitted else model for model in models)


def _list_reported(config: ModelConfig) -> list[Pair]:
    """Return the fields of a configuration that are reported."""
    reported = ModelConfig()
    reported.CopyFrom(config)
    for field in _OMITTED:
        reported.ClearField(field)
    reported.parameters.pop(CONTENT_PARAMETER, None)
    for group in reported.instance_group:
        group.ClearField("name")  # Triton derives it from the model's
    return list_fields(reported)


def _join_item(item: str, pairs: Sequence[Pair]) -> str:
    """Return the fields of an item of a list or map as one value; that of a scalar is the value itself."""
    names = (pair.field.removeprefix(item).removeprefix(".") for pair in pairs)
    return " ".join(f"{name}: {pair.value}" if name else pair.value for name, pair in zip(names, pairs, strict=True))


def _build_value(field: str, value: str, origin: str) -> ConfigValue:
    return ConfigValue(field=shorten(field, _LONGEST_FIELD), value=shorten(value, _LONGEST_VALUE), origin=origin)
