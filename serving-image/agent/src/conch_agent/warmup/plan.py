"""What a warm-up asks: the user's requests, or one made for each version, and how many of them at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from conch_agent.settings import Settings
from conch_agent.threads import in_thread
from conch_agent.warmup.course import Call
from conch_agent.warmup.infer import Endpoint
from conch_agent.warmup.requests import Request, from_config_map, from_folder, inline, synthesised
from conch_contract import ModelSource, Warmup

_MOST_AT_ONCE: Final = 16


async def plan(
    source: ModelSource, versions: Sequence[int], endpoint: Endpoint, settings: Settings, files: Path
) -> tuple[list[Call], int]:
    """Return the calls of one turn, and how many requests are in flight: one for each instance of the model.

    `files` is where the model's files from storage lie. Only the newest version is held to the expected outputs:
    it is the one that clients get who name none. Raises Failure, Refused, TritonGone.
    """
    configs = {version: await endpoint.config(version) for version in versions}
    said = await in_thread(written_by_user, source, source.warmup or Warmup(), settings, files)
    calls: list[Call] = []
    for version, config in configs.items():
        requests = said or [synthesised(await endpoint.metadata(version), config)]
        calls += [Call(request, version, checked=version == max(versions)) for request in requests]
    return calls, min(_MOST_AT_ONCE, max(instances(config) for config in configs.values()))


def instances(config: Mapping[str, Any]) -> int:
    """Return how many instances of the model Triton runs by this configuration."""
    groups = config.get("instance_group") or ()
    return max(1, sum(int(group.get("count", 1)) * max(1, len(group.get("gpus") or ())) for group in groups))


def written_by_user(source: ModelSource, warmup: Warmup, settings: Settings, files: Path) -> list[Request]:
    """Return the requests that the user wrote; none where they are to be made."""
    if warmup.requests:
        return inline(warmup.requests)
    if warmup.config_map:
        return from_config_map(warmup, settings.warmup)
    if warmup.path:
        return from_folder(warmup, source.storage_uri, files)
    return []
