"""The fetched files of a model, which have passed its checks, before they are laid out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import PurePosixPath

from conch_agent import config, layout
from conch_agent.boot import read_boot_id
from conch_agent.dependencies import find_callees, find_steps, makes_calls
from conch_agent.effective_config import find_written_values
from conch_agent.fetch import FetchResult
from conch_agent.python_files import find_programs, find_python_files
from conch_agent.repository_model import RepositoryModel, compute_content
from conch_agent.sources import Source
from conch_agent.sources.base import Listing
from conch_agent.threads import run_in_thread


@dataclass(frozen=True)
class FetchedModel:
    """The files of a model, and its configuration.

    Attributes:
        source: Their source.
        contents: All files of the source.
        paths: Paths of those that Triton gets.
        result: Their folder and digests.
        plan: Their places in the model folder.
        merged: The configuration of the model.
        versions: Their object versions.
        verified: The checks of storage.verify that they have passed.
        signer: The signer whose signature is verified; empty: none.
    """

    source: Source
    contents: Listing
    paths: tuple[PurePosixPath, ...]
    result: FetchResult
    plan: layout.Plan
    merged: config.MergedConfig
    versions: dict[str, str]
    verified: tuple[str, ...]
    signer: str

    async def build_model(self, source_hash: str, identity: str, size: int, began: float) -> RepositoryModel:
        """Return the model for the repository, and write its identifier into the configuration.

        Args:
            source_hash: Hash of its source in the manifest.
            identity: Identity of the source's listing.
            size: Size of the files in bytes.
            began: Time at which the preparation began, of the monotonic clock.
        """
        result, plan, merged = self.result, self.plan, self.merged
        config.set_content(merged.config, compute_content(source_hash, result.digest))
        return RepositoryModel(
            source_hash=source_hash,
            identity=identity,
            digest=result.digest,
            size=size,
            versions=config.select_versions(merged.config, plan.versions),
            seconds=round(time.monotonic() - began, 3),
            boot=read_boot_id(),
            overrides=tuple(str(override) for override in merged.overrides),
            file_name=merged.file_name,
            sequences=merged.config.WhichOneof("scheduling_choice") == "sequence_batching",
            callees=await run_in_thread(find_callees, merged.config, find_programs(plan, merged.config, result.files)),
            makes_calls=await run_in_thread(makes_calls, find_python_files(plan, merged.config, result.files)),
            steps=find_steps(merged.config),
            verified=self.verified,
            signer=self.signer,
            response_cache=merged.config.response_cache.enable,
            written=find_written_values(merged.config, merged.parts),
        )
