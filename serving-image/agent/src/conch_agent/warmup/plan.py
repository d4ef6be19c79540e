"""The plan of a warm-up: the user's requests, or one made for each version, and their concurrency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from conch_agent.settings import Settings
from conch_agent.threads import run_in_thread
from conch_agent.warmup.infer import Endpoint
from conch_agent.warmup.requests import Request, build_inline_requests, read_config_map, read_folder, synthesise
from conch_agent.warmup.run import Call
from conch_contract import ModelSource, Warmup

_MAX_CONCURRENCY: Final = 16


async def plan_calls(
    source: ModelSource, versions: Sequence[int], endpoint: Endpoint, settings: Settings, files: Path
) -> tuple[list[Call], int]:
    """Return the calls of a turn, and the number of requests in flight: one for each instance of the model.

    Only the answers of the newest version are compared with the expected outputs: requests without a version reach it.

    Args:
        source: The model in the manifest.
        versions: The versions that Triton serves.
        endpoint: The endpoint of the model.
        settings: Paths of the container.
        files: The folder of the model's files.

    Raises:
        Failure: The user's requests are missing or invalid.
        TritonError: Triton does not describe the model.
        TritonUnavailableError: Triton does not answer.
    """
    configs = {version: await endpoint.read_config(version) for version in versions}
    user_requests = await run_in_thread(read_user_requests, source, source.warmup or Warmup(), settings, files)
    calls: list[Call] = []
    for version, config in configs.items():
        requests = user_requests or [synthesise(await endpoint.read_metadata(version), config)]
        calls += [Call(request, version, is_checked=version == max(versions)) for request in requests]
    return calls, min(_MAX_CONCURRENCY, max(count_instances(config) for config in configs.values()))


def count_instances(config: Mapping[str, Any]) -> int:
    """Return the number of instances of a model.

    Args:
        config: Triton's configuration of the model.
    """
    groups = config.get("instance_group") or ()
    return max(1, sum(int(group.get("count", 1)) * max(1, len(group.get("gpus") or ())) for group in groups))


def read_user_requests(source: ModelSource, warmup: Warmup, settings: Settings, files: Path) -> list[Request]:
    """Return the requests of the user; none where the warm-up has none.

    Args:
        source: The model in the manifest.
        warmup: The settings of the warm-up.
        settings: Paths of the container.
        files: The folder of the model's files.

    Raises:
        Failure: The requests are missing or invalid.
    """
    if warmup.requests:
        return build_inline_requests(warmup.requests)
    if warmup.config_map:
        return read_config_map(warmup, settings.warmup)
    if warmup.path:
        return read_folder(warmup, source.storage_uri, files)
    return []
