"""The preparation of a model: from its source to its folder in Triton's model repository."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final

from tritonclient.grpc.model_config_pb2 import ModelConfig

from conch_agent import config, layout
from conch_agent.boot import read_boot_id
from conch_agent.cache import CachedSource, CacheUnusableError
from conch_agent.decryption import Decrypter, find_home, open_decrypter
from conch_agent.dependencies import find_callees, find_steps, makes_calls
from conch_agent.digests import check_digest
from conch_agent.download import Progress
from conch_agent.effective_config import find_written_values
from conch_agent.fetch import FetchResult
from conch_agent.model_fetch import ModelFetch
from conch_agent.model_files import read_names
from conch_agent.object_versions import find_versions, list_files
from conch_agent.reasons import Failure, Reason, build_superseded
from conch_agent.repository_model import RepositoryModel, check_name, compute_content, read_marker
from conch_agent.settings import Settings
from conch_agent.sources import Source
from conch_agent.sources.base import Listing
from conch_agent.threads import run_in_thread
from conch_agent.verification import check_config, read_checks
from conch_contract.formats import FORMATS
from conch_contract.manifest import ModelSource

_LONGEST_CONFIG: Final = 1024 * 1024
_PYTHON: Final = FORMATS["python"]


@dataclass(frozen=True)
class _Content:
    """Files that have passed all checks, and how they are laid out.

    Attributes:
        source: Their source: of an archive that of what it holds.
        listing: The files of the source.
        versions: Their object versions.
        fetched: What was fetched of them.
        verified: The checks of storage.verify that they have passed.
        signer: The signer whose signature is verified; empty: none.
        decrypter: What has decrypted them; None: they are not encrypted.
        folder: The folder of the files that are laid out.
        paths: Their paths.
        merged: The model's configuration.
        plan: The plan of the model folder.
    """

    source: Source
    listing: Listing
    versions: dict[str, str]
    fetched: FetchResult
    verified: tuple[str, ...]
    signer: str
    decrypter: Decrypter | None
    folder: Path
    paths: tuple[PurePosixPath, ...]
    merged: config.MergedConfig
    plan: layout.Plan


class Preparation:
    """Fetches and lays out a model."""

    def __init__(self, source: ModelSource, settings: Settings) -> None:
        self.progress = Progress()
        self._source = source
        self._settings = settings
        self._name = check_name(source)
        self._home = find_home(source, settings)
        self._identity = ""  # of the files in the listing of the model's repository; empty: any are accepted
        self._version_problem = ""  # the reason why the revision's object versions cannot be read, as a sentence
        # Not hashed: the warm-up, whose change requires no reload, and digest and object versions, which the operator
        # has only after the report of a pod.
        served = source.without_pins().model_copy(update={"warmup": None})
        self._source_hash = hashlib.sha256(served.to_json().encode()).hexdigest()

    @property
    def digest(self) -> str:
        """The digest of the revision's content; empty: any content is accepted."""
        return self._source.digest

    def pin(self, source: ModelSource, identity: str = "") -> None:
        """Set digest and object versions of the revision's files, or the files of a repository's listing.

        Args:
            source: The source, whose other fields are unchanged.
            identity: Identity of the model's files in the listing of its repository; empty: any files are accepted.
        """
        self._source = source
        self._identity = identity

    @property
    def _trash(self) -> Path:
        return layout.find_trash(self._settings.downloads, self._name)

    @property
    def target(self) -> Path:
        """The model folder in the repository."""
        return self._settings.repository / self._name

    def find_existing(self) -> RepositoryModel | None:
        """Return the model that an earlier run of the agent laid out from the same source; None where there is none."""
        model = read_marker(self.target)
        if model is None:
            return None
        is_same = model.source_hash == self._source_hash and model.boot == read_boot_id()
        is_complete = (self._home / layout.SERVED).is_dir()  # an agent that was killed may not have made it
        if not (is_same and is_complete) or (self.digest and model.digest != self.digest):
            return None
        self.progress.fetched = self.progress.total = model.size
        return model

    async def prepare(
        self,
        current: RepositoryModel | None,
        on_fetch: Callable[[], None] | None = None,
        before_layout: Callable[[], Awaitable[None]] | None = None,
    ) -> RepositoryModel:
        """Fetch the model and lay it out, unless the current one has the same content.

        Args:
            current: The model in the repository.
            on_fetch: Called before a fetch.
            before_layout: Waits until the folder in the repository may change.

        Returns:
            The model in the repository: the current one, if its source is unchanged or not readable.

        Raises:
            Failure: The model cannot be prepared. ContentChanged: the source has other content than the revision.
        """
        if current and self.digest and current.digest == self.digest:
            return current
        model = await self._fetch(current, on_fetch, before_layout)
        self._check_digest(model.digest)
        return model

    def _check_digest(self, digest: str) -> None:
        """Refuse files that are not those of the revision with ContentChanged."""
        if not self.digest or digest == self.digest:
            return
        detail = f" {self._version_problem}" if self._version_problem else ""
        message = (
            f"{self._source.storage_uri} has changed: this revision serves {self.digest}, and there is {digest} now."
            f"{detail} Write each content under a path of its own; to serve this one, change the predictor, such as an"
            " annotation in pod.annotations, so that it becomes a new revision."
        )
        raise Failure(Reason.CONTENT_CHANGED, message)

    def _check_listing(self, listing: Listing) -> None:
        """Refuse another listing than that of the model's repository, or of the revision, with SourceChanged."""
        if self._identity and listing.identity != self._identity:
            message = (
                f"{self._source.storage_uri} changed after its repository was listed. The repository is listed again,"
                " so that all models are of one upload."
            )
            raise Failure(Reason.CHANGED, message)
        expected = "" if self.digest else self._source.source_identity
        if expected and listing.identity != expected:
            raise build_superseded(self._source.storage_uri)

    async def _fetch(
        self,
        current: RepositoryModel | None,
        on_fetch: Callable[[], None] | None,
        before_layout: Callable[[], Awaitable[None]] | None,
    ) -> RepositoryModel:
        began = time.monotonic()
        files = ModelFetch(self._source, self._settings, self.progress)
        try:
            source = await files.open("" if self._identity else self.digest)
            listing, self._version_problem = await list_files(source, self._source.object_versions)
        except Failure:
            if current:
                return current  # Triton can load it without the source
            raise
        self._check_listing(listing)
        if current and current.identity == listing.identity:
            return current
        if on_fetch:
            on_fetch()
        content = await self._fetch_content(files, source, listing)
        merged, folder = content.merged, content.folder
        model = RepositoryModel(
            source_hash=self._source_hash,
            identity=listing.identity,
            digest=content.fetched.digest,
            size=self.progress.fetched,
            versions=config.select_versions(merged.config, content.plan.versions),
            seconds=round(time.monotonic() - began, 3),
            boot=read_boot_id(),
            overrides=tuple(str(override) for override in merged.overrides),
            file_name=merged.file_name,
            sequences=merged.config.WhichOneof("scheduling_choice") == "sequence_batching",
            callees=await run_in_thread(
                find_callees, merged.config, _find_programs(content.plan, merged.config, folder)
            ),
            makes_calls=await run_in_thread(makes_calls, _find_python_files(content.plan, merged.config, folder)),
            steps=find_steps(merged.config),
            object_versions=content.versions,
            verified=content.verified,
            signer=content.signer,
            response_cache=merged.config.response_cache.enable,
            written=find_written_values(merged.config, merged.parts),
            cache_problem=files.cache_problem,
            source_identity="" if isinstance(source, CachedSource) else listing.identity,
        )
        if before_layout:
            await before_layout()
        try:
            await self._lay_out(content, model)
        except OSError as error:
            if content.decrypter or not files.uses_cache:
                raise
            problem = CacheUnusableError.from_os_error(error)
            again = await files.run_without_cache(content.source, content.listing, problem)
            if again.digest != content.fetched.digest:  # what was verified are the files of the cache
                message = f"{source.uri} changed while it was fetched; the agent fetches the new content."
                raise Failure(Reason.CHANGED, message) from error
            model = replace(model, cache_problem=files.cache_problem)
            await self._lay_out(replace(content, folder=again.files), model)
        await files.clear()
        return model

    async def _fetch_content(self, files: ModelFetch, source: Source, listing: Listing) -> _Content:
        """Fetch the files, and return them after all checks of theirs, decrypted if they are encrypted.

        Where they are not, the layout is planned before the fetch: an invalid one requires no download.
        """
        unpacked, contents = await files.unpack(source, listing)
        checks = await read_checks(unpacked, contents, self._source, self._settings)
        readable, used, fetched = unpacked, checks.select(contents), None
        if decrypter := await open_decrypter(used, self._source, self._settings):
            fetched = await files.run(unpacked, contents)
            checks.verify(fetched.sha256)
            readable, used = await decrypter.run(fetched.files)
        uri, paths = self._source.storage_uri, tuple(item.path for item in used.items)
        text = await self._read_config(readable, used)
        merged = config.merge_config(text, self._source, FORMATS[self._source.format].backend)
        plan = layout.plan_layout(self._source.format, paths, uri, read_names(merged.config, uri))
        versions = await find_versions(source, listing)
        fetched = fetched or await files.run(unpacked, contents)
        verified = checks.verify(fetched.sha256)
        if not decrypter:
            check_config(uri, plan.config, text, fetched.sha256)
        self._check_digest(fetched.digest)
        config.set_content(merged.config, compute_content(self._source_hash, fetched.digest))
        return _Content(
            source=unpacked,
            listing=contents,
            versions=versions,
            fetched=fetched,
            verified=verified,
            signer=checks.signer,
            decrypter=decrypter,
            folder=decrypter.folder if decrypter else fetched.files,
            paths=paths,
            merged=merged,
            plan=plan,
        )

    async def _lay_out(self, content: _Content, model: RepositoryModel) -> None:
        laid, text = self._home / "laid", config.to_text(content.merged.config)
        await run_in_thread(layout.link_served, content.paths, content.folder, self._home)
        build = partial(layout.build_folder, content.plan, content.folder, laid, self.target, self._trash)
        await run_in_thread(build, config=text, marker=asdict(model))
        if content.decrypter:
            await run_in_thread(content.decrypter.clear)

    async def _read_config(self, source: Source, listing: Listing) -> str | None:
        """Return config.pbtxt before the fetch: it names files, and an invalid one requires no download.

        In an archive it is read after the download.
        """
        path = layout.find_config(self._source.format, [item.path for item in listing.items])
        if path is None:
            return None
        item = next(item for item in listing.items if item.path == path)
        content = bytearray()
        async with aclosing(source.read(item, 0)) as chunks:
            async for chunk in chunks:
                content += chunk
                if len(content) > _LONGEST_CONFIG:
                    message = f"{source.uri}: {path} has over {_LONGEST_CONFIG} bytes: that is no model's config.pbtxt."
                    raise Failure(Reason.INVALID_CONFIG, message)
        check_digest(item, source.uri, hashlib.sha256(content).hexdigest(), len(content), [content])
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            message = f"{source.uri}: {path} is no text: byte {error.start} is not UTF-8. Write it as text."
            raise Failure(Reason.INVALID_CONFIG, message) from None


def _find_programs(plan: layout.Plan, config: ModelConfig, files: Path) -> list[Path]:
    """Return the model.py of each version; none for backends other than Python."""
    name = config.default_model_filename or _PYTHON.model_files[0]
    targets = {PurePosixPath(str(version)) / name for version in plan.versions}
    return [file for target, file in _list_python_files(plan, config, files) if target in targets]


def _find_python_files(plan: layout.Plan, config: ModelConfig, files: Path) -> list[Path]:
    """Return all Python files of a model; none for backends other than Python."""
    return [file for _, file in _list_python_files(plan, config, files)]


def _list_python_files(plan: layout.Plan, config: ModelConfig, files: Path) -> Iterator[tuple[PurePosixPath, Path]]:
    if config.backend in {_PYTHON.backend, ""}:
        yield from ((target, files / path) for target, path in plan.files.items() if target.suffix == ".py")
