"""Triton's model configuration: the user's config.pbtxt, what the manifest typed over it, and the name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from google.protobuf import text_format  # type: ignore[import-untyped]
from tritonclient.grpc.model_config_pb2 import (
    ModelConfig,
    ModelDynamicBatching,
    ModelInstanceGroup,
    ModelVersionPolicy,
)

from conch_agent.reasons import Failure, Reason
from conch_contract.manifest import DynamicBatching, InstanceGroup, ModelSource, VersionPolicy

CONTENT: Final = "conch.dev/content"


def parse(own: str | None, uri: str) -> ModelConfig:
    """Return the user's config.pbtxt, empty where there is none; raises InvalidConfig with line and column."""
    config = ModelConfig()
    if own is not None:
        try:
            text_format.Parse(own, config)
        except text_format.ParseError as error:
            message = f"{uri}: config.pbtxt cannot be read: {error} (line:column)."
            raise Failure(Reason.INVALID_CONFIG, message) from error
    return config


def merge(own: str | None, source: ModelSource, backend: str, content: str) -> ModelConfig:
    """Return the configuration that Triton gets; raises InvalidConfig for a config.pbtxt that cannot be read.

    `content` is written into the parameters: Triton hands it out again with the configuration that it serves,
    which is the only sure way to know whether a swap is done. What the manifest types wins over the file;
    what neither says is left out, for Triton's auto-completion.
    """
    config = parse(own, source.storage_uri)
    config.name = source.name
    config.parameters[CONTENT].string_value = content
    if backend:
        config.backend = backend
        config.platform = ""
    typed = source.config
    if typed.max_batch_size is not None:
        config.max_batch_size = typed.max_batch_size
    if typed.instance_groups:
        del config.instance_group[:]
        config.instance_group.extend(_group(group) for group in typed.instance_groups)
    if typed.dynamic_batching is not None:
        config.dynamic_batching.CopyFrom(_batching(typed.dynamic_batching))
    if typed.version_policy is not None:
        config.version_policy.CopyFrom(_policy(typed.version_policy))
    return config


def to_text(config: ModelConfig) -> str:
    """Return the configuration as config.pbtxt."""
    return str(text_format.MessageToString(config))


def wanted_versions(config: ModelConfig, versions: Iterable[int]) -> tuple[int, ...]:
    """Return which of the version folders Triton shall serve; its default is the latest one."""
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


def _group(group: InstanceGroup) -> ModelInstanceGroup:
    return ModelInstanceGroup(kind=f"KIND_{group.kind}", count=group.count, gpus=list(group.gpus))


def _batching(batching: DynamicBatching) -> ModelDynamicBatching:
    return ModelDynamicBatching(
        max_queue_delay_microseconds=batching.max_queue_delay_microseconds,
        preferred_batch_size=list(batching.preferred_batch_size),
        preserve_ordering=batching.preserve_ordering,
    )


def _policy(policy: VersionPolicy) -> ModelVersionPolicy:
    if policy.all:
        return ModelVersionPolicy(all=ModelVersionPolicy.All())
    if policy.specific:
        return ModelVersionPolicy(specific=ModelVersionPolicy.Specific(versions=list(policy.specific)))
    return ModelVersionPolicy(latest=ModelVersionPolicy.Latest(num_versions=policy.latest or 1))
