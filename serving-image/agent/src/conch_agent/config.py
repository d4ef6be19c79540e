"""Triton's model configuration: the user's config.pbtxt, with the fields of the manifest and the model's name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from google.protobuf import text_format  # type: ignore[import-untyped]
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup, ModelVersionPolicy

from conch_agent.batching import merge_batching
from conch_agent.clashes import check_clashes
from conch_agent.config_patch import PLACE, check_patch, merge_patch
from conch_agent.instance_groups import merge_groups
from conch_agent.optimization import merge_optimization
from conch_agent.overrides import Override, compare
from conch_agent.programs import refuse_programs
from conch_agent.reasons import Failure, Reason
from conch_agent.sequences import merge_sequences
from conch_contract import ConfigOrigin
from conch_contract.formats import FORMATS
from conch_contract.manifest import ModelSource, VersionPolicy

_PLACEHOLDER: Final = re.compile(r"\$\{\w+\}")  # as TensorRT-LLM's templates have them
CONTENT_PARAMETER: Final = "conch.dev/content"
# Backends by Triton's older name, the platform.
_PLATFORMS: Final = {row.platform: row.backend for row in FORMATS.values() if row.platform}


@dataclass(frozen=True)
class MergedConfig:
    """The configuration for Triton.

    Attributes:
        config: The configuration.
        overrides: Its differences from config.pbtxt.
        parts: What it is merged from, by origin; an earlier part wins over a later one.
        file_name: The model's name in config.pbtxt, if it is another one; else empty.
    """

    config: ModelConfig
    overrides: tuple[Override, ...]
    parts: Mapping[ConfigOrigin, ModelConfig]
    file_name: str = ""


def parse_config(text: str | None, uri: str) -> ModelConfig:
    """Return the user's config.pbtxt; an empty message where there is none.

    Args:
        text: The text of config.pbtxt, or None.
        uri: The storageUri, with which messages begin.

    Raises:
        Failure: InvalidConfig, with line and column.
    """
    return _parse(text, f"{uri}: config.pbtxt") if text is not None else ModelConfig()


def _parse(text: str, place: str) -> ModelConfig:
    """Return the message of a text; its failure begins with the place of the text."""
    config = ModelConfig()
    try:
        text_format.Parse(text, config)
    except (text_format.ParseError, ValueError, RecursionError) as error:  # ValueError: of a number out of range
        message = f"{place} cannot be read: {error} (line:column)."
        if placeholder := _PLACEHOLDER.search(text):
            message += f" It is a template: fill in {placeholder[0]} and the like."
        raise Failure(Reason.INVALID_CONFIG, message) from error
    return config


def merge_config(text: str | None, source: ModelSource, backend: str) -> MergedConfig:
    """Merge the fields of the manifest into the user's config.pbtxt.

    A field of the manifest overrides the same field of the file, also one that it has in the syntax of the file. All
    other fields of the file stay, also those in the same message. Fields that neither sets stay unset, for Triton's
    auto-completion.

    Args:
        text: The text of config.pbtxt, or None.
        source: The model in the manifest.
        backend: The backend of its format; empty: config.pbtxt names it.

    Raises:
        Failure: InvalidConfig for a file that cannot be read or may run a program; ConfigConflict for fields that
            exclude one another.
    """
    file = parse_config(text, source.storage_uri)
    base = _apply_patch(file, source)
    refuse_programs(base, source)
    check_clashes(base, source, backend)
    config = ModelConfig()
    config.CopyFrom(base)
    config.name = source.name
    if backend:
        config.backend = backend
        config.platform = ""
    _merge_typed(config, source)
    spec, derived = _build_spec_part(source), ModelConfig(backend=backend)
    return MergedConfig(
        config,
        tuple(_find_overrides(file, config)),
        {ConfigOrigin.SPEC: spec, ConfigOrigin.CONCH: derived, ConfigOrigin.FILE: file},
        file.name if file.name != source.name else "",
    )


def _merge_typed(config: ModelConfig, source: ModelSource) -> None:
    """Merge the typed fields of the manifest into a configuration."""
    settings = source.config
    if settings.max_batch_size is not None:
        config.max_batch_size = settings.max_batch_size
    if settings.instance_groups:
        groups = merge_groups(tuple(config.instance_group), settings.instance_groups, source.storage_uri)
        del config.instance_group[:]
        config.instance_group.extend(groups)
    if settings.dynamic_batching is not None:
        config.dynamic_batching.SetInParent()
        merge_batching(config.dynamic_batching, settings.dynamic_batching)
    if settings.sequence_batching is not None:
        config.sequence_batching.SetInParent()
        merge_sequences(config.sequence_batching, settings.sequence_batching)
    if settings.optimization is not None:
        merge_optimization(config.optimization, settings.optimization)
    if settings.version_policy is not None:
        config.version_policy.CopyFrom(_build_policy(settings.version_policy))
    if settings.response_cache:
        config.response_cache.enable = True
    for name, value in settings.parameters.items():
        config.parameters[name].string_value = value


def _build_spec_part(source: ModelSource) -> ModelConfig:
    """Return the fields that the manifest sets, without those of config.pbtxt and without defaults beside them."""
    spec = _apply_patch(ModelConfig(), source)
    spec.instance_group.extend(ModelInstanceGroup() for _ in source.config.instance_groups)
    _merge_typed(spec, source)
    return spec


def _apply_patch(file: ModelConfig, source: ModelSource) -> ModelConfig:
    """Return the user's config.pbtxt with the fields that the manifest has in the same syntax."""
    base = ModelConfig()
    base.CopyFrom(file)
    if source.config.text:
        patch = _parse(source.config.text, PLACE)
        check_patch(patch, source.config)
        merge_patch(base, patch)
    return base


def set_content(config: ModelConfig, content: str) -> None:
    """Set an identifier of the content in the parameters.

    Triton returns it with the configuration of a served version. It is the only proof that a reload is complete.

    Args:
        config: The configuration.
        content: The identifier.
    """
    config.parameters[CONTENT_PARAMETER].string_value = content


def to_text(config: ModelConfig) -> str:
    """Return the configuration as config.pbtxt."""
    return str(text_format.MessageToString(config))


def select_versions(config: ModelConfig, versions: Iterable[int]) -> tuple[int, ...]:
    """Return the version folders that Triton serves; by default the latest one.

    Args:
        config: The configuration, with its version policy.
        versions: The versions that have a folder.
    """
    present = sorted(versions)
    policy = config.version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            return tuple(present)
        case "specific":
            return tuple(sorted(policy.specific.versions))
        case "latest":
            return tuple(present[-max(1, policy.latest.num_versions) :])
        case _:
            return tuple(present[-1:])


def _find_overrides(file: ModelConfig, config: ModelConfig) -> Iterator[Override]:
    """Yield the differences from config.pbtxt, without the name and without two spellings of one backend."""
    written = file.backend or _PLATFORMS.get(file.platform, file.platform)
    for override in compare(file, config):
        if override.field not in {"backend", "platform", "name"}:
            yield override
        elif override.field != "name" and written != config.backend:
            yield Override(override.field, override.file, f'"{config.backend}"')


def _build_policy(policy: VersionPolicy) -> ModelVersionPolicy:
    if policy.all:
        return ModelVersionPolicy(all=ModelVersionPolicy.All())
    if policy.specific:
        return ModelVersionPolicy(specific=ModelVersionPolicy.Specific(versions=list(policy.specific)))
    return ModelVersionPolicy(latest=ModelVersionPolicy.Latest(num_versions=policy.latest or 1))
