"""Triton's model configuration: the user's config.pbtxt, the fields that the manifest sets in it, and the name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from google.protobuf import text_format  # type: ignore[import-untyped]
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelVersionPolicy

from conch_agent.clashes import check_clashes
from conch_agent.instance_groups import merge_groups
from conch_agent.overrides import Override, compare
from conch_agent.programs import refuse_programs
from conch_agent.reasons import Failure, Reason
from conch_contract.formats import FORMATS
from conch_contract.manifest import DynamicBatching, ModelSource, VersionPolicy

CONTENT: Final = "conch.dev/content"
# Backends by Triton's older names of them.
_PLATFORMS: Final = {row.platform: row.backend for row in FORMATS.values() if row.platform}


@dataclass(frozen=True)
class Merged:
    """The configuration that Triton gets, where it differs from config.pbtxt, and another name that stands there."""

    config: ModelConfig
    overrides: tuple[Override, ...]
    file_name: str = ""


def parse(own: str | None, uri: str) -> ModelConfig:
    """Return the user's config.pbtxt, empty where there is none; raises InvalidConfig with line and column."""
    config = ModelConfig()
    if own is not None:
        try:
            text_format.Parse(own, config)
        except (text_format.ParseError, ValueError, RecursionError) as error:  # ValueError: of a number out of range
            message = f"{uri}: config.pbtxt cannot be read: {error} (line:column)."
            raise Failure(Reason.INVALID_CONFIG, message) from error
    return config


def merge(own: str | None, source: ModelSource, backend: str) -> Merged:
    """Merge the fields of the manifest into the user's config.pbtxt.

    A field that the manifest sets wins over the file's; every other field of the file stays, those beside it in the
    same message included. What neither sets is left out, for Triton's auto-completion.

    Args:
        own: The text of config.pbtxt, or None.
        source: The model as the manifest has it.
        backend: The backend of its format; empty where config.pbtxt chooses.

    Raises:
        Failure: InvalidConfig for a file that cannot be read or may run a program; ConfigConflict for fields that
            exclude one another.
    """
    file = parse(own, source.storage_uri)
    refuse_programs(file, source.format, source.storage_uri)
    check_clashes(file, source, backend)
    config = ModelConfig()
    config.CopyFrom(file)
    config.name = source.name
    if backend:
        config.backend = backend
        config.platform = ""
    typed = source.config
    if typed.max_batch_size is not None:
        config.max_batch_size = typed.max_batch_size
    if typed.instance_groups:
        groups = merge_groups(tuple(file.instance_group), typed.instance_groups, source.storage_uri)
        del config.instance_group[:]
        config.instance_group.extend(groups)
    if typed.dynamic_batching is not None:
        _merge_batching(config, typed.dynamic_batching)
    if typed.version_policy is not None:
        config.version_policy.CopyFrom(_policy(typed.version_policy))
    return Merged(config, tuple(_overrides(file, config)), file.name if file.name != source.name else "")


def set_content(config: ModelConfig, content: str) -> None:
    """Write an identifier of the content into the parameters.

    Triton returns it with the configuration that it serves, which is the only sure way to know whether a swap is done.
    """
    config.parameters[CONTENT].string_value = content


def to_text(config: ModelConfig) -> str:
    """Return the configuration as config.pbtxt."""
    return str(text_format.MessageToString(config))


def wanted_versions(config: ModelConfig, versions: Iterable[int]) -> tuple[int, ...]:
    """Return the version folders that Triton serves; the default of its policy is the latest one."""
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


def _overrides(file: ModelConfig, config: ModelConfig) -> Iterator[Override]:
    """Yield the differences of what is served; the name is none of them, nor are two spellings of one backend."""
    written = file.backend or _PLATFORMS.get(file.platform, file.platform)
    for override in compare(file, config):
        if override.field not in {"backend", "platform", "name"}:
            yield override
        elif override.field != "name" and written != config.backend:
            yield Override(override.field, override.file, f'"{config.backend}"')


def _merge_batching(config: ModelConfig, typed: DynamicBatching) -> None:
    batching = config.dynamic_batching
    batching.SetInParent()
    if typed.max_queue_delay_microseconds is not None:
        batching.max_queue_delay_microseconds = typed.max_queue_delay_microseconds
    if typed.preferred_batch_size is not None:
        batching.preferred_batch_size[:] = typed.preferred_batch_size
    if typed.preserve_ordering is not None:
        batching.preserve_ordering = typed.preserve_ordering


def _policy(policy: VersionPolicy) -> ModelVersionPolicy:
    if policy.all:
        return ModelVersionPolicy(all=ModelVersionPolicy.All())
    if policy.specific:
        return ModelVersionPolicy(specific=ModelVersionPolicy.Specific(versions=list(policy.specific)))
    return ModelVersionPolicy(latest=ModelVersionPolicy.Latest(num_versions=policy.latest or 1))
