"""The models of a repository: its manifest names the repository, and the listing of the source has their folders."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import PurePosixPath

import structlog

from conch_agent.backoff import Backoff
from conch_agent.fetch import check_size
from conch_agent.model_repository import find_models
from conch_agent.reasons import Failure, Reason
from conch_agent.settings import Settings
from conch_agent.sources import open_source
from conch_contract import ModelManifest, ModelReport, ModelSource, ModelState, TritonConfig
from conch_contract.manifest import select_model
from conch_contract.sentences import join_words

_MAX_NAMES = 16  # in a message


class Expansion:
    """The manifest with a source for each model of its repositories, once these are listed.

    Attributes:
        manifest: The manifest; None: a repository is not listed yet.
        report: The reports of the entries of repositories that are not listed yet.
    """

    def __init__(self, manifest: ModelManifest, settings: Settings) -> None:
        self.manifest: ModelManifest | None = None
        repositories = (source for source in manifest.models if source.is_repository)
        self.report = tuple(ModelReport(name=source.name, state=ModelState.PENDING) for source in repositories)
        self._sources = manifest.models
        self._settings = settings
        if not self.report:
            self.manifest = manifest

    async def run(self) -> None:
        """List the repositories until it succeeds."""
        backoff = Backoff(first=1, longest=60)
        models: list[ModelSource] = []
        for source in self._sources:
            while True:
                try:
                    models += await list_models(source, self._settings) if source.is_repository else (source,)
                    break
                except Failure as failure:
                    self._set_failure(source.name, failure)
                    await asyncio.sleep(backoff.draw_delay())
        self.manifest = ModelManifest(models=tuple(models))

    def _set_failure(self, name: str, failure: Failure) -> None:
        structlog.get_logger().warning("not listed", model=name, reason=failure.reason, message=failure.message)
        failed = {"state": ModelState.FAILED, "reason": failure.reason, "message": failure.message}
        self.report = tuple(each.model_copy(update=failed) if each.name == name else each for each in self.report)


async def list_models(source: ModelSource, settings: Settings) -> tuple[ModelSource, ...]:
    """Return a source for each model of a repository.

    Args:
        source: The repository.
        settings: The agent's settings.

    Raises:
        Failure: The source cannot be listed, or it is no repository with the entry.
    """
    if source.config != TritonConfig():
        message = (
            f"{source.storage_uri} is a repository of several models, and fields of triton are set that are those of"
            " one. Remove them, and write them into config.pbtxt of the model."
        )
        raise Failure(Reason.CONFIG_CONFLICT, message)
    listing = await open_source(source.storage_uri, settings, source.secret).list_files()
    check_size(listing.total, settings.max_bytes, source.storage_uri)
    names = find_folders((item.path for item in listing.items), source)
    return tuple(select_source(source, name) for name in names)


def find_folders(paths: Iterable[PurePosixPath], source: ModelSource) -> tuple[str, ...]:
    """Return the names of the models of a repository, in alphabetical order.

    Args:
        paths: The files of the source.
        source: The repository.

    Raises:
        Failure: NotAModel: the models are not side by side. EntryMissing: the entry is not one of them.
    """
    uri, files = source.storage_uri, tuple(paths)
    models = find_models(files)
    names = tuple(model.name for model in models if len(model.parts) == 1)
    if not names:
        raise Failure(Reason.NOT_A_MODEL, _describe_no_repository(files, models, uri))
    if source.name not in names:
        message = (
            f"The repository {uri} has no model '{source.name}', which predictor.entry names. It has"
            f" {_join_some(names)}. Set predictor.entry to the model that clients call."
        )
        raise Failure(Reason.ENTRY_MISSING, message)
    return names


def select_source(source: ModelSource, name: str) -> ModelSource:
    """Return the source of one model of a repository.

    Args:
        source: The repository.
        name: Name of the model's folder.
    """
    wire = source.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return ModelSource.model_validate(select_model(wire, name))


def _describe_no_repository(files: tuple[PurePosixPath, ...], models: tuple[PurePosixPath, ...], uri: str) -> str:
    if models:
        parent = models[0].parent
        return (
            f"{uri} is not a model repository: its models are in a folder below it ({_join_some(map(str, models))})."
            f" Write that folder into storageUri, such as {uri.rstrip('/')}/{parent}."
        )
    return (
        f"{uri} is not a model repository: it holds {_join_some(map(str, files))}, and no folder of a model, which has"
        " config.pbtxt, or a file such as model.onnx in a version folder. For one model set modelFormat.name to its"
        " own format, or to triton."
    )


def _join_some(names: Iterable[str]) -> str:
    """Return the first names, and how many more there are."""
    found = tuple(names)
    more = len(found) - _MAX_NAMES
    return join_words((*found[:_MAX_NAMES], *([f"{more} more"] if more > 0 else ())), "and")
