"""The models of a repository: its manifest names the repository, and the listing of the source has their folders.

The models are those of one listing, and so are their files. Until all of them have served, the repository is listed
again and again, as a whole: an upload that was not complete, or a folder that was missing, makes another set. The set
that has served is remembered on the disk, and stays.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import structlog

from conch_agent.backoff import Backoff
from conch_agent.download import check_size
from conch_agent.model_repository import find_models
from conch_agent.places import try_places
from conch_agent.reasons import Failure, Reason, build_superseded
from conch_agent.settings import Settings
from conch_agent.sources import open_source
from conch_agent.sources.base import Item, Listing
from conch_agent.threads import run_in_thread
from conch_contract import ModelManifest, ModelReport, ModelSource, ModelState, TritonConfig
from conch_contract.manifest import select_model
from conch_contract.parsing import parse_json
from conch_contract.sentences import join_some


@dataclass(frozen=True)
class Part:
    """A model of the manifest.

    Attributes:
        source: Its source.
        identity: Identity of its files in the listing of its repository; empty: any files are accepted.
    """

    source: ModelSource
    identity: str = ""


def combine_identities(identities: Mapping[str, str]) -> str:
    """Return the identity of the listing of a repository; empty where that of a model is not known.

    Args:
        identities: Identity of the listing of each model's folder, by name.

    >>> combine_identities({"a": "1", "b": ""}), combine_identities({})
    ('', '')
    >>> combine_identities({"a": "1", "b": "2"}) == combine_identities({"b": "2", "a": "1"})
    True
    """
    if not all(identities.values()):
        return ""
    lines = "".join(f"{name}\0{identity}\n" for name, identity in sorted(identities.items()))
    return hashlib.sha256(lines.encode()).hexdigest() if lines else ""


class Expansion:
    """The models of a manifest, of which those of repositories are known once these are listed.

    Attributes:
        parts: The models; None: a repository is not listed yet.
        pending: The reports of the entries of repositories that are not listed yet.
    """

    def __init__(self, manifest: ModelManifest, settings: Settings) -> None:
        self.parts: tuple[Part, ...] | None = None
        repositories = [source for source in manifest.models if source.is_repository]
        self.pending = tuple(ModelReport(name=source.name, state=ModelState.PENDING) for source in repositories)
        self._sources = manifest.models
        self._settings = settings
        if not repositories:
            self.parts = tuple(Part(source) for source in manifest.models)

    @property
    def is_settled(self) -> bool:
        """True if no model comes from a listing that may change."""
        return self.parts is not None and not any(part.identity for part in self.parts)

    async def run(self) -> None:
        """List the repositories until the models are settled."""
        if remembered := await run_in_thread(self._find_remembered):
            self.parts = remembered
        backoff = Backoff(first=2, longest=60)
        while not self.is_settled:
            delay = backoff.draw_delay()
            try:
                parts = await self._list_all()
            except Failure as failure:
                self._set_failure(failure)
                delay = max(delay, failure.retry_after)
            except Exception as error:  # noqa: BLE001  an unexpected failure is reported, and the listing repeated
                structlog.get_logger().exception("unexpected")
                self._set_failure(Failure(Reason.INTERNAL, f"{type(error).__name__}: {error}"))
            else:
                if self.is_settled:  # while the listing was under way
                    return
                self.parts = parts
            await asyncio.sleep(delay)

    async def settle(self, served: Sequence[Part]) -> None:
        """Keep the models that have served, also for an agent that starts again.

        Args:
            served: The models, which may be older than the last listing.
        """
        self.parts = tuple(replace(part, identity="") for part in served)
        try:
            await run_in_thread(self._remember, self.parts)
        except OSError as error:
            structlog.get_logger().warning("the models are not remembered", detail=str(error))

    async def _list_all(self) -> tuple[Part, ...]:
        parts: list[Part] = []
        for source in self._sources:
            parts += await _list_repository(source, self._settings) if source.is_repository else [Part(source)]
        return tuple(parts)

    def _remember(self, parts: Sequence[Part]) -> None:
        temporary = self._file.with_suffix(".new")
        temporary.write_text(json.dumps({self._key: [part.source.to_json() for part in parts]}))
        temporary.replace(self._file)

    def _find_remembered(self) -> tuple[Part, ...]:
        """Return the models that have served from the same manifest; empty: there are none."""
        try:
            known = parse_json(self._file.read_text())[self._key]
            return tuple(Part(ModelSource.model_validate_json(source)) for source in known)
        except (OSError, ValueError, KeyError, TypeError):
            return ()

    @property
    def _file(self) -> Path:
        return self._settings.repository.parent / "expansion.json"

    @property
    def _key(self) -> str:
        return hashlib.sha256(ModelManifest(models=self._sources).to_json().encode()).hexdigest()

    def _set_failure(self, failure: Failure) -> None:
        structlog.get_logger().warning("not listed", reason=failure.reason, message=failure.message)
        failed = {"state": ModelState.FAILED, "reason": failure.reason, "message": failure.message}
        self.pending = tuple(each.model_copy(update=failed) for each in self.pending)


async def _list_repository(source: ModelSource, settings: Settings) -> list[Part]:
    """Return the models of a repository with the content of its revision.

    Raises:
        Failure: SourceChanged: the revision is that of another listing. The failures of `list_models`.
    """
    parts = await list_models(source, settings)
    expected = source.source_identity
    if expected and combine_identities({part.source.name: part.identity for part in parts}) != expected:
        raise build_superseded(source.storage_uri)
    return parts


async def list_models(source: ModelSource, settings: Settings) -> list[Part]:
    """Return the models of a repository.

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
    if source.verify and source.verify.digest:
        message = (
            f"{source.storage_uri} is a repository of several models, and storage.verify.digest is of one. Remove it,"
            " or write each folder as one of models, with a digest of its own."
        )
        raise Failure(Reason.CONFIG_CONFLICT, message)

    async def list_files(place: ModelSource, _: Sequence[Failure]) -> Listing:
        return await open_source(place.storage_uri, settings, place.secret).list_files()

    listing = await try_places(source.places, list_files)
    if listing.archives:
        message = (
            f"{source.storage_uri} has its files in archives, and a repository is listed before any file is fetched."
            " Upload it as files and folders; or name each model in predictor.models, with its folder in storageUri."
        )
        raise Failure(Reason.UNSUPPORTED, message)
    folders = _split(listing)
    names = find_folders((item.path for item in listing.items), source)
    check_size(sum(folders[name].total for name in names), settings.max_bytes, source.storage_uri)
    identities = {name: folders[name].identity for name in names}
    return [Part(select_source(source, name), identity) for name, identity in identities.items()]


def _split(listing: Listing) -> Mapping[str, Listing]:
    """Return the listing of each folder, by its name; paths are below it."""
    folders: dict[str, list[Item]] = {}
    for item in listing.items:
        if len(item.path.parts) > 1:
            inner = PurePosixPath(*item.path.parts[1:])
            folders.setdefault(item.path.parts[0], []).append(replace(item, path=inner))
    return {name: Listing(tuple(items)) for name, items in folders.items()}


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
            f" {join_some(names)}. Set predictor.entry to the model that clients call."
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
            f"{uri} is not a model repository: its models are in a folder below it ({join_some(map(str, models))})."
            f" Write that folder into storageUri, such as {uri.rstrip('/')}/{parent}."
        )
    return (
        f"{uri} is not a model repository: it holds {join_some(map(str, files))}, and no folder of a model, which has"
        " config.pbtxt, or a file such as model.onnx in a version folder. For one model set modelFormat.name to its"
        " own format, or to triton."
    )
