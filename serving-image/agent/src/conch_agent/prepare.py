"""The preparation of a model: from its source to its folder in Triton's model repository."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from conch_agent import config, layout
from conch_agent.boot import read_boot_id
from conch_agent.cache import CacheUnusableError, LastContent
from conch_agent.decryption import find_home, open_decrypter
from conch_agent.disk import translate_full_disk
from conch_agent.environments import set_environment
from conch_agent.expected_content import ExpectedContent
from conch_agent.fetched_model import FetchedModel
from conch_agent.folders import find_trash
from conch_agent.metrics import ModelMetrics, Phase
from conch_agent.model_environment import install_environment
from conch_agent.model_fetch import ModelFetch
from conch_agent.model_plan import read_plan
from conch_agent.object_versions import find_versions, list_files
from conch_agent.peers import Peers
from conch_agent.places import Places, try_places
from conch_agent.policy import has_passed, read_policy
from conch_agent.reasons import Failure, Reason
from conch_agent.repository_model import RepositoryModel, check_name, read_marker
from conch_agent.settings import Settings
from conch_agent.sources import Source
from conch_agent.sources.base import Listing
from conch_agent.threads import run_in_thread
from conch_agent.verification import check_config, read_checks
from conch_contract.manifest import ModelSource
from conch_contract.report import Origin
from conch_contract.verification import SignaturePolicy


@dataclass(frozen=True)
class _Attempt:
    """A fetch from one place.

    Attributes:
        place: The model at this place.
        policy: The signature policy in force; None: there is none.
        detour: Why the places before are not used; empty: there are none.
        last: The content that the place had last, if only the cache has it now; None: the place is tried.
    """

    place: ModelSource
    policy: SignaturePolicy | None
    detour: str = ""
    last: LastContent | None = None


class Preparation:
    """Fetches and lays out a model."""

    def __init__(
        self,
        source: ModelSource,
        settings: Settings,
        metrics: ModelMetrics | None = None,
        peers: Peers | None = None,
    ) -> None:
        self._metrics = metrics or ModelMetrics()
        self.progress = self._metrics.progress
        self._settings = settings
        self._name = check_name(source)
        self._folder = find_home(source, settings)
        self._expected = ExpectedContent(source)
        self._peers = peers
        self._places = Places(source.storage_uri)
        self._version_problem = ""  # the reason why the revision's object versions cannot be read, as a sentence
        # Not hashed: warm-up and mirrors, whose change requires no reload, and digest and object versions, which the
        # operator has only after the report of a pod.
        served = source.without_pins().model_copy(update={"warmup": None, "mirrors": ()})
        self._source_hash = hashlib.sha256(served.to_json().encode()).hexdigest()

    @property
    def digest(self) -> str:
        """The digest of the revision's content; empty: any content is accepted."""
        return self._expected.digest

    def pin(self, source: ModelSource, identity: str = "") -> None:
        """Set digest and object versions of the revision's files, or the files of a repository's listing.

        Args:
            source: The source, whose other fields are unchanged.
            identity: Identity of the model's files in the listing of its repository; empty: any files are accepted.
        """
        if source.digest != self.digest:
            self._places = Places(source.storage_uri)
        self._expected = ExpectedContent(source, identity)

    @property
    def _source(self) -> ModelSource:
        return self._expected.source

    @property
    def _trash(self) -> Path:
        return find_trash(self._settings.downloads, self._name)

    @property
    def target(self) -> Path:
        """The model folder in the repository."""
        return self._settings.repository / self._name

    def find_existing(self) -> RepositoryModel | None:
        """Return the model that an earlier run of the agent laid out from the same source; None where there is none.

        Triton may serve it already, so that the policy in force does not count here: it does before a load.
        """
        model = read_marker(self.target)
        if model is None:
            return None
        is_same = model.source_hash == self._source_hash and model.boot == read_boot_id()
        is_complete = (self._folder / layout.SERVED).is_dir()  # an agent that was killed may not have made it
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
        """Fetch the model and lay it out, unless the current one has the same content, and passed the policy in force.

        Args:
            current: The model in the repository.
            on_fetch: Called before a fetch.
            before_layout: Waits until the folder in the repository may change.

        Returns:
            The model in the repository: the current one, if its source is unchanged or not readable.

        Raises:
            Failure: The model cannot be prepared. ContentChanged: the source has other content than the revision.
                SignaturePolicyUnreadable: it is not known which signatures the files need.
        """
        policy = await run_in_thread(read_policy, self._settings)
        if current and not has_passed(current.policy, policy):
            current = None
        if current and self.digest and current.digest == self.digest:
            return current

        async def fetch(place: ModelSource, failures: Sequence[Failure]) -> RepositoryModel:
            detour = " ".join(failure.message for failure in failures)
            with translate_full_disk(place.storage_uri):
                return await self._fetch(_Attempt(place, policy, detour), current, on_fetch, before_layout)

        try:
            return await try_places(self._source.places, fetch)
        except Failure as failure:
            # Of a revision with a digest the cache has been tried, and the files of a listing are those of now.
            if failure.is_outage and not self.digest and not self._expected.identity:
                for place in self._source.places:
                    with suppress(Failure):
                        if last := await ModelFetch(place, self._settings, self.progress).find_last():
                            attempt = _Attempt(place, policy, failure.message, last)
                            with translate_full_disk(place.storage_uri):
                                return await self._fetch(attempt, None, on_fetch, before_layout)
            raise

    async def _fetch(
        self,
        attempt: _Attempt,
        current: RepositoryModel | None,
        on_fetch: Callable[[], None] | None,
        before_layout: Callable[[], Awaitable[None]] | None,
    ) -> RepositoryModel:
        """Fetch the model from one place and lay it out, as `prepare`.

        Args:
            attempt: The place.
            current: As in `prepare`.
            on_fetch: As in `prepare`.
            before_layout: As in `prepare`.
        """
        began = time.monotonic()
        place, detour, last = attempt.place, attempt.detour, attempt.last
        files = ModelFetch(place, self._settings, self.progress, self._peers)
        try:
            with self._metrics.time(Phase.LIST):
                source = await files.open(last.digest if last else "" if self._expected.identity else self.digest)
                listing, self._version_problem = await list_files(source, place.object_versions)
        except Failure:
            if current and not self.digest:
                return current  # Triton can load it without the source
            raise
        identity = last.identity if last else listing.identity
        self._expected.check_listing(identity, place.storage_uri)
        if current and current.identity == listing.identity:
            self._expected.check_digest(current.digest, place, self._version_problem)
            return current
        if last and not files.is_cached:
            raise Failure(Reason.NOT_FOUND, f"{place.storage_uri}: the cache has no longer what was fetched last.")
        fetched = await self._download(files, source, listing, attempt, on_fetch)
        is_of_storage_uri = place.storage_uri == self._source.storage_uri and (last or not files.is_cached)
        model = replace(
            await fetched.build_model(self._source_hash, identity, self.progress.fetched, began),
            object_versions={} if detour else fetched.versions,
            policy=attempt.policy.version if attempt.policy else "",
            cache_problem=files.cache_problem,
            origin=Origin.CACHE if files.is_cached else Origin.MIRROR if detour else Origin.STORAGE,
            uri=place.storage_uri,
            detour=detour,
            fetched=last.fetched if last else "",
            source_identity=identity if is_of_storage_uri else "",
        )
        try:
            environment = await self._install(fetched, files, attempt)
        except CacheUnusableError as problem:
            model = await self._leave_cache(model, fetched, files, problem)
            environment = await self._install(fetched, files, attempt)
        if before_layout:
            await before_layout()
        with self._metrics.time(Phase.LAYOUT):
            model = await self._lay_out(model, fetched, files, attempt, environment)
        await files.record_last(model.digest, model.identity)
        return model

    async def _download(
        self,
        files: ModelFetch,
        source: Source,
        listing: Listing,
        attempt: _Attempt,
        on_fetch: Callable[[], None] | None,
    ) -> FetchedModel:
        """Fetch the files of a listing, and verify them."""
        place = attempt.place
        marked = self._places.mark(listing, place, self._expected.verified_digest) if self._source.mirrors else listing
        if on_fetch:
            on_fetch()
        with self._metrics.time(Phase.FETCH):
            unpacked, contents = await files.unpack(source, marked)
        with self._metrics.time(Phase.VERIFY):
            checks = await read_checks(unpacked, contents, place, self._settings, attempt.policy)
        uri, used = place.storage_uri, checks.select(contents)
        decrypter = await open_decrypter(used, place, self._settings)
        # Before the fetch where the files are readable then: an invalid configuration requires no download.
        planned = None if decrypter else await read_plan(unpacked, used, self._source, uri)
        versions = await find_versions(source, listing)
        with self._metrics.time(Phase.FETCH):
            result = await files.run(unpacked, contents)
        try:
            verified = checks.verify(result.sha256)
            if planned:
                check_config(uri, planned.layout.config, planned.text, result.sha256)
            self._expected.check_digest(result.digest, place, self._version_problem)
        except Failure as failure:
            if files.is_shared:
                await self._leave_peers(files, unpacked, contents)
                return await self._download(files, source, listing, attempt, on_fetch)
            if not self._source.mirrors:
                raise
            if not (self._places.mixes and self._expected.verified_digest):
                self._places.refuse(listing, place, failure)
                raise
            self._places.mixes = False  # files of several places may be among them: this place alone decides
            await files.discard(unpacked, contents)
            return await self._download(files, source, listing, attempt, on_fetch)
        readable: Source = unpacked
        if decrypter:
            try:
                with self._metrics.time(Phase.DECRYPT):
                    readable, used = await decrypter.run(result.files)
            except Failure as failure:
                if not files.is_shared or failure.reason != Reason.DECRYPTION_FAILED:
                    raise
                await self._leave_peers(files, unpacked, contents)
                return await self._download(files, source, listing, attempt, on_fetch)
            result = replace(result, files=decrypter.folder)
        planned = planned or await read_plan(readable, used, self._source, uri)
        paths, plan, merged = tuple(item.path for item in used.items), planned.layout, planned.merged
        return FetchedModel(unpacked, contents, paths, result, plan, merged, versions, verified, checks.signer)

    async def _leave_peers(self, files: ModelFetch, source: Source, listing: Listing) -> None:
        """Discard what other pods may have sent: one with wrong bytes must not keep this one from serving."""
        self._peers = None
        await files.discard_shared(source, listing)

    async def _install(self, fetched: FetchedModel, files: ModelFetch, attempt: _Attempt) -> Path | None:
        """Return the folder of the Python environment of the model; None: it needs none."""
        verify = self._source.verify
        is_signed = attempt.policy is not None or (verify is not None and verify.signature is not None)
        uri = attempt.place.storage_uri
        return await install_environment(fetched, files, uri, self._metrics, is_signed=is_signed)

    async def _lay_out(
        self,
        model: RepositoryModel,
        fetched: FetchedModel,
        files: ModelFetch,
        attempt: _Attempt,
        environment: Path | None,
    ) -> RepositoryModel:
        """Lay the files out in the repository; those of the pod, if the file system of the cache refuses."""
        try:
            await self._build_folder(model, fetched, environment)
        except OSError as error:
            if self._source.decrypt or not files.uses_cache:
                raise
            model = await self._leave_cache(model, fetched, files, CacheUnusableError.from_os_error(error))
            environment = await self._install(fetched, files, attempt)
            await self._build_folder(model, fetched, environment)
        await files.keep_environment(environment)
        await files.clear()
        return model

    async def _leave_cache(
        self, model: RepositoryModel, fetched: FetchedModel, files: ModelFetch, problem: CacheUnusableError
    ) -> RepositoryModel:
        """Fetch the files into the pod, after the cache has not taken what is made of them."""
        again = await files.run_without_cache(fetched.source, fetched.contents, problem)
        if again.digest != model.digest:  # what was verified are the files of the cache
            message = f"{model.uri} changed while it was fetched; the agent fetches the new content."
            raise Failure(Reason.CHANGED, message) from problem
        return replace(model, cache_problem=files.cache_problem)

    async def _build_folder(self, model: RepositoryModel, fetched: FetchedModel, environment: Path | None) -> None:
        folder, files, merged = self._folder / "laid", fetched.result.files, fetched.merged.config
        await run_in_thread(layout.link_served, fetched.paths, files, self._folder)
        await run_in_thread(
            layout.build_folder,
            fetched.plan,
            files,
            folder,
            self.target,
            self._trash,
            config=config.to_text(set_environment(merged) if environment else merged),
            marker=asdict(model),
            environment=environment,
        )
