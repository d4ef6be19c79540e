"""From a model's source to a model folder in Triton's repository; or from what is laid out already."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from tritonclient.grpc.model_config_pb2 import ModelConfig

from conch_agent import config, layout
from conch_agent.dependencies import find_callees
from conch_agent.fetch import Fetch, Progress
from conch_agent.model_files import read_names
from conch_agent.object_versions import find_versions, list_files
from conch_agent.reasons import Failure, Reason
from conch_agent.settings import Settings
from conch_agent.sources import Source, open_source
from conch_agent.sources.base import Listing
from conch_agent.threads import in_thread
from conch_contract.formats import FORMATS
from conch_contract.manifest import ModelSource
from conch_contract.parsing import parse_json

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_LONGEST_CONFIG: Final = 1024 * 1024
_PYTHON: Final = FORMATS["python"]
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Laid:
    """The marker of a laid-out model.

    `want` is a hash of what the manifest asks, `identity` of the source's listing, `boot` the machine's
    start: after a lost machine the files are hashed again before they are believed. `object_versions` are those of the
    files in their bucket, by path below storageUri.
    `overrides` are the fields of config.pbtxt that have another value in Triton, a sentence each; `file_name` is the
    model's name in config.pbtxt where it is another; `callees` are the models that this one calls; `sequences`: it has
    sequence_batching, so that all requests of a sequence need the same Triton.
    """

    want: str
    identity: str
    digest: str
    size: int
    versions: tuple[int, ...]
    seconds: float
    boot: str
    overrides: tuple[str, ...] = ()
    file_name: str = ""
    callees: tuple[str, ...] = ()
    sequences: bool = False
    object_versions: dict[str, str] = field(default_factory=dict)

    @property
    def content(self) -> str:
        """What Triton has to reload for when it changes."""
        return _content(self.want, self.digest)


class Preparation:
    """Fetches and lays out one model."""

    def __init__(self, source: ModelSource, settings: Settings) -> None:
        self.progress = Progress()
        self._source = source
        self._settings = settings
        self._name = check_name(source)
        self._folder = settings.downloads / source.name
        self._unread = ""  # why the object versions that the revision serves could not be read, a sentence
        # How a model is warmed is no part of what is served: another warm-up loads nothing anew. Nor are digest and
        # object versions, which the operator knows only when a pod has told them.
        served = source.unpinned.model_copy(update={"warmup": None})
        self._want = hashlib.sha256(served.to_json().encode()).hexdigest()

    @property
    def digest(self) -> str:
        """The digest of the content that the revision serves; empty: any content will do."""
        return self._source.digest

    def pin(self, source: ModelSource) -> None:
        """Set digest and object versions of the revision's files; the rest of the source is unchanged."""
        self._source = source

    @property
    def target(self) -> Path:
        """The model folder in the repository."""
        return self._settings.repository / self._name

    def laid(self) -> Laid | None:
        """Return what an earlier run of the agent laid out for the same wish, or None."""
        try:
            raw: dict[str, Any] = parse_json((self.target / layout.MARKER).read_text())
            values: dict[str, Any] = {key: tuple(item) if isinstance(item, list) else item for key, item in raw.items()}
            found = Laid(**values)
        except (OSError, ValueError, TypeError, AttributeError):
            return None
        if found.want != self._want or found.boot != _boot() or (self.digest and found.digest != self.digest):
            return None
        self.progress.fetched = self.progress.total = found.size
        return found

    async def fresh(self, kept: Laid | None, fetching: Callable[[], None] | None = None) -> Laid:
        """Fetch and lay out; or return `kept` where the source is still the same, or has other content than allowed.

        Raises:
            Failure: also where all that can be had is other content than the revision serves.
        """
        if kept and self.digest and kept.digest == self.digest:
            return kept
        laid = await self._fetched(kept, fetching)
        self._refuse_other(laid.digest)
        return laid

    def _refuse_other(self, digest: str) -> None:
        """Raise ContentChanged for files that are not those of the revision."""
        if not self.digest or digest == self.digest:
            return
        unread = f" {self._unread}" if self._unread else ""
        message = (
            f"{self._source.storage_uri} has changed: this revision serves {self.digest}, and there is {digest} now."
            f"{unread} Write each content under a path of its own; to serve this one, change the predictor, such as an"
            " annotation in pod.annotations, so that it becomes a new revision."
        )
        raise Failure(Reason.CONTENT_CHANGED, message)

    async def _fetched(self, kept: Laid | None, fetching: Callable[[], None] | None) -> Laid:
        began = time.monotonic()
        try:
            source = open_source(self._source.storage_uri, self._settings)
            listing, self._unread = await list_files(source, self._source.object_versions)
        except Failure:
            if kept:
                return kept  # what is laid out can be loaded, whatever the source says now
            raise
        if kept and kept.identity == listing.identity:
            return kept
        if fetching:
            fetching()
        uri, paths = self._source.storage_uri, [item.path for item in listing.items]
        own = await self._own_config(source, listing)
        names = read_names(config.parse(own, uri), uri)
        plan = layout.plan(self._source.format, paths, uri, names)
        merged = config.merge(own, self._source, FORMATS[self._source.format].backend)
        versions = await find_versions(source, listing)
        fetch = Fetch(source, self._folder, self._settings.max_bytes, self.progress)
        fetched = await fetch.run(listing)
        self._refuse_other(fetched.digest)
        config.set_content(merged.config, _content(self._want, fetched.digest))
        marker = Laid(
            want=self._want,
            identity=listing.identity,
            digest=fetched.digest,
            size=self.progress.fetched,
            versions=config.wanted_versions(merged.config, plan.versions),
            seconds=round(time.monotonic() - began, 3),
            boot=_boot(),
            overrides=tuple(str(override) for override in merged.overrides),
            file_name=merged.file_name,
            sequences=merged.config.WhichOneof("scheduling_choice") == "sequence_batching",
            callees=await in_thread(find_callees, merged.config, _programs(plan, merged.config, fetched.files)),
            object_versions=versions,
        )
        await in_thread(
            layout.lay,
            plan,
            fetched.files,
            self._folder / "laid",
            self.target,
            config=config.to_text(merged.config),
            marker=asdict(marker),
        )
        return marker

    async def _own_config(self, source: Source, listing: Listing) -> str | None:
        """Return config.pbtxt before the fetch: it names files, and what is wrong with it costs no download."""
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
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            message = f"{source.uri}: {path} is no text: byte {error.start} is not UTF-8. Write it as text."
            raise Failure(Reason.INVALID_CONFIG, message) from None


def _programs(plan: layout.Plan, config: ModelConfig, files: Path) -> list[Path]:
    """Return the model.py of each version; none where the backend is another than Python."""
    if config.backend not in {_PYTHON.backend, ""}:
        return []
    name = config.default_model_filename or _PYTHON.model_files[0]
    targets = [PurePosixPath(str(version)) / name for version in plan.versions]
    return [files / plan.files[target] for target in targets if target.suffix == ".py" and target in plan.files]


def _content(want: str, digest: str) -> str:
    return hashlib.sha256(f"{want} {digest}".encode()).hexdigest()


def check_name(source: ModelSource) -> str:
    """Return the model's name if it can be a folder's."""
    if not _NAME.fullmatch(source.name):
        message = f"The model name {source.name[:200]!r} cannot be a folder: use letters, digits, '.', '_' and '-'."
        raise Failure(Reason.UNSAFE_PATH, message)
    return source.name


def _boot() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""
