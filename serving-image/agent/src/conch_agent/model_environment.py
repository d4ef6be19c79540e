"""The Python environment of a model, from the requirements.txt among its files."""

from __future__ import annotations

from pathlib import Path

from conch_agent.environments import WHEELS, find_requirements, read_requirements
from conch_agent.fetched_model import FetchedModel
from conch_agent.metrics import ModelMetrics, Phase
from conch_agent.model_fetch import ModelFetch
from conch_agent.reasons import Failure, Reason
from conch_agent.threads import run_in_thread


async def install_environment(
    fetched: FetchedModel, files: ModelFetch, uri: str, metrics: ModelMetrics, *, is_signed: bool
) -> Path | None:
    """Return the folder of the environment that the configuration of a model names; None: it names none.

    Args:
        fetched: The files of the model, which are verified.
        files: Their fetch, which has the cache.
        uri: The storageUri of the place, with which messages begin.
        metrics: Has the duration.
        is_signed: True if the model's files need a signature.

    Raises:
        Failure: InvalidConfig, or the packages cannot be installed or stored.
        CacheUnusableError: The cache cannot take the packages.
    """
    path = find_requirements(fetched.merged.config)
    if path is None:
        return None
    name = f"{uri}: {path}"
    if path not in fetched.plan.files:
        message = f"{name}: EXECUTION_ENV_PATH names it, and there is no such file. Upload it."
        raise Failure(Reason.INVALID_CONFIG, message)
    file = fetched.plan.files[path]
    folder, beside = fetched.result.files, file.parent / WHEELS
    wheels = [folder / other for other in fetched.paths if other.is_relative_to(beside)]  # of what is verified
    with metrics.time(Phase.ENVIRONMENT):
        found = await run_in_thread(read_requirements, folder / file, name, wheels, is_signed=is_signed)
        return await files.install(found, name)
