"""The fetch of a model's files: from its source or the cache, into the cache or the pod."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from conch_agent.cache import Cache, CachedSource, CacheUnusableError, LastContent, open_cache
from conch_agent.decryption import find_home
from conch_agent.download import Progress
from conch_agent.environments import ENVIRONMENT_FOLDERS, INDEX_KEYS, Environments, Requirements, parse_index
from conch_agent.fetch import Fetch, FetchResult
from conch_agent.folders import delete_tree
from conch_agent.layout import SERVED
from conch_agent.peers import Peers
from conch_agent.reasons import Failure
from conch_agent.settings import Settings
from conch_agent.sources import Source, build_key, open_source
from conch_agent.sources.base import Item, Listing
from conch_agent.sources.storage_secret import read_secret
from conch_agent.threads import run_in_thread
from conch_agent.unpacking import Unpacking
from conch_contract.manifest import ModelSource


class ModelFetch:
    """One fetch of a model.

    Attributes:
        cache_problem: Why the pod does without its cache, as a sentence without a full stop; empty: it does not, or has
            none.
        is_cached: True if the cache is the source.
        is_shared: True if other pods may have sent files.
    """

    def __init__(self, model: ModelSource, settings: Settings, progress: Progress, peers: Peers | None = None) -> None:
        """Create the fetch.

        Args:
            model: The model in the manifest, whose name can be that of a folder.
            settings: The agent's settings.
            progress: Counts the bytes.
            peers: The other pods of the service; None: this pod is alone.
        """
        self.cache_problem = ""
        self.is_cached = False
        self.is_shared = False
        self._cache: Cache | None = None
        self._unpacking: Unpacking | None = None
        self._model = model
        self._settings = settings
        self._progress = progress
        self._peers = peers
        self._folder = settings.downloads / model.name

    async def open(self, digest: str) -> Source:
        """Return the cache as the source of a content, if it has it; else the source of the model.

        Args:
            digest: Digest of the content; empty: any content of the source is meant.

        Raises:
            Failure: As `open_source`.
        """
        return await run_in_thread(self._open, digest)

    def _open(self, digest: str) -> Source:
        files: tuple[Item, ...] = ()
        try:
            self._cache = open_cache(self._settings)
            files = self._cache.find_content(digest) if self._cache and digest else ()
        except CacheUnusableError as error:
            self._cache, self.cache_problem = None, str(error)
        uri = self._model.storage_uri
        self.is_cached = bool(files)
        return CachedSource(uri, files) if files else open_source(uri, self._settings, self._model.secret)

    async def unpack(self, source: Source, listing: Listing) -> tuple[Source, Listing]:
        """Return the source of the model's files, and its files: those of archives are fetched and unpacked.

        Args:
            source: The source, as `open` returned it.
            listing: Its files and archives.

        Raises:
            Failure: The archives cannot be fetched or stored, or are refused.
        """
        if not listing.archives:
            return source, listing
        if self._cache:
            try:
                return await self._unpack(source, listing, self._cache)
            except CacheUnusableError as error:
                self._cache, self.cache_problem = None, str(error)
        return await self._unpack(source, listing, None)

    async def _unpack(self, source: Source, listing: Listing, cache: Cache | None) -> tuple[Source, Listing]:
        await self._place(cache)
        self._unpacking = Unpacking(source, self._folder, self._settings.max_bytes, self._progress, cache)
        return await self._unpacking.run(listing)

    async def run(self, source: Source, listing: Listing) -> FetchResult:
        """Fetch the files into the model's folder, which is on the file system of the cache where there is one.

        Args:
            source: The source, as `unpack` returned it.
            listing: Its files.

        Raises:
            Failure: The files cannot be read or stored.
        """
        if not self._unpacking and source.find_local(listing.items[0]):  # the pod has them already
            self._cache, self.cache_problem = None, ""
        if self._cache:
            try:
                return await self._fetch(source, listing, self._cache)
            except CacheUnusableError as error:
                return await self.run_without_cache(source, listing, error)
        return await self._fetch(source, listing, None)

    async def run_without_cache(self, source: Source, listing: Listing, problem: CacheUnusableError) -> FetchResult:
        """Fetch the files into the pod, after the cache has not taken them.

        Args:
            source: The source, as `open` returned it.
            listing: Its files.
            problem: Why the cache has not taken them.

        Raises:
            Failure: The files cannot be read or stored.
        """
        cache, self._cache, self.cache_problem = self._cache, None, str(problem)
        try:
            return await self._fetch(source, listing, None)
        finally:
            if cache:  # what the pod does not use can be deleted
                for name in ("files", "laid", SERVED, *ENVIRONMENT_FOLDERS):
                    await run_in_thread(delete_tree, cache.folder / self._model.name / name)

    async def install(self, requirements: Requirements, place: str) -> Path:
        """Return the folder of a Python environment, in the cache with the files where there is one.

        What an encrypted model brings is not left in the cache, where it would be readable.

        Args:
            requirements: The packages.
            place: The name of their file in messages.

        Raises:
            Failure: The packages cannot be installed or stored.
        """
        cache = None if self._model.decrypt else self._cache
        secret = await run_in_thread(read_secret, self._settings.find_secret(self._model.secret), INDEX_KEYS)
        folder = find_home(self._model, self._settings)
        environments = Environments(folder, cache, place, parse_index(secret), self._settings.max_bytes)
        return await environments.ensure(requirements)

    async def keep_environment(self, environment: Path | None) -> None:
        """Delete the Python environments of contents before. The model folder has links of its own.

        Args:
            environment: The folder of the environment of this content; None: it has none.
        """
        for home in (self._settings.downloads, self._settings.decrypted):
            for folder in (home / self._model.name / name for name in ENVIRONMENT_FOLDERS):
                if folder != environment:
                    await run_in_thread(delete_tree, folder)

    async def discard(self, source: Source, listing: Listing) -> None:
        """Delete the files and what is known of them, so that the next fetch downloads them again.

        Args:
            source: The source, as `unpack` returned it.
            listing: Its files.
        """
        await run_in_thread(self._discard, listing, source.uri)

    def _discard(self, listing: Listing, uri: str) -> None:
        for name in ("files", "parts"):
            delete_tree(self._folder / name)
        if self._cache:
            self._cache.forget(listing.items, uri)

    async def discard_shared(self, source: Source, listing: Listing) -> None:
        """Discard the files, so that the next fetch downloads them from the source alone.

        Args:
            source: As in `discard`.
            listing: As in `discard`.
        """
        self._peers, self.is_shared = None, False
        await self.discard(source, listing)

    async def find_last(self) -> LastContent | None:
        """Return the content that the source had when it was fetched last; None: the cache does not know it.

        Raises:
            Failure: SecretMissing or InvalidSecret.
        """
        return await run_in_thread(self._find_last)

    def _find_last(self) -> LastContent | None:
        try:
            cache = open_cache(self._settings)
        except CacheUnusableError:
            return None
        return cache.find_last(self._build_key()) if cache else None

    async def record_last(self, digest: str, identity: str) -> None:
        """Record the content as the last one of its source, if the cache has it and it is not an older version.

        Args:
            digest: Digest of the content.
            identity: Identity of the source's listing.
        """
        if self._cache and not self.is_cached and not self._model.object_versions:
            last = LastContent(digest, identity, datetime.now(UTC).isoformat(timespec="seconds"))
            with suppress(OSError, Failure):  # pods do without it
                await run_in_thread(self._cache.write_last, await run_in_thread(self._build_key), last)

    def _build_key(self) -> str:
        return build_key(self._model.storage_uri, self._settings, self._model.secret)

    @property
    def uses_cache(self) -> bool:
        """True if the files are in the cache."""
        return self._cache is not None

    async def _fetch(self, source: Source, listing: Listing, cache: Cache | None) -> FetchResult:
        await self._place(cache)
        if cache or not self._peers:
            return await self._run(source, listing, cache)
        async with self._peers.share(source, self._model, listing, self._progress) as shared:
            self.is_shared = shared is not source
            return await self._run(shared, listing, None)

    async def _run(self, source: Source, listing: Listing, cache: Cache | None) -> FetchResult:
        return await Fetch(source, self._folder, self._settings.max_bytes, self._progress, cache).run(listing)

    async def clear(self) -> None:
        """Delete what a retry needs until the model is laid out: archives, and of encrypted files both forms.

        Those of the repository are links of their own, and encrypted files in the cache stay.
        """
        if self._unpacking:
            await run_in_thread(self._unpacking.clear)
        if self._model.decrypt:
            await run_in_thread(delete_tree, find_home(self._model, self._settings) / "files")
            if not self._cache:
                await run_in_thread(delete_tree, self._folder / "files")

    async def _place(self, cache: Cache | None) -> None:
        """Have the model's folder in the cache, or in the pod.

        Raises:
            CacheUnusableError: The cache takes no folder.
        """
        try:
            await run_in_thread(self._place_folder, cache.folder / self._model.name if cache else None)
        except OSError as error:
            if cache:
                raise CacheUnusableError.from_os_error(error) from error
            raise

    def _place_folder(self, place: Path | None) -> None:
        """Have the model's folder at a place in the cache, to which it is a link; None: in the pod."""
        is_link = self._folder.is_symlink()
        if is_link and place != self._folder.readlink():
            self._folder.unlink()
            is_link = False
        if place:
            place.mkdir(exist_ok=True)  # also after other pods have deleted it because the lease was not renewed
            if not is_link:
                delete_tree(self._folder)
                self._folder.symlink_to(place)
