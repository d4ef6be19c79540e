"""A claim, or the volume of a pod, that is full at 20 points of a fetch, or read-only, on a file system of its own."""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from aiohttp import web

from conch_agent.disk import RESERVE
from conch_agent.model_warnings import describe_unused_cache
from conch_agent.prepare import Preparation
from conch_agent.reasons import Failure, Reason
from conch_agent.repository_model import RepositoryModel
from conch_agent.settings import Settings
from conch_contract import ModelSource
from tests.support.hub import Hub
from tests.support.namespaces import fill_disk, make_read_only, mount_disk, run_apart
from tests.support.tars import pack_files
from tests.support.web import serve_apps

_RANDOM: Final = random.Random(7)  # noqa: S311  no secret
_SAME: Final = _RANDOM.randbytes(60_000)
FILES: Final = {
    "config.pbtxt": b'backend: "python"\n',
    "1/model.py": b"class TritonPythonModel: ...\n",
    "1/weights.bin": _RANDOM.randbytes(700_000),
    "1/same.bin": _SAME,
    "2/model.py": b"class TritonPythonModel: ...\n",
    "2/same.bin": _SAME,
}
URI: Final = "hf://team/model"
_PAGE: Final = 4096
_BYTES: Final = sum(-(-len(content) // _PAGE) * _PAGE for content in FILES.values())  # on the disk
ARCHIVE: Final = pack_files(FILES)
LACKING: Final = (
    r": (the models volume is full|model\.tar has the member '\S+' of \d+ bytes, and the models volume has \d+ free, of"
    r" which the agent leaves 16777216)\. The volume is on the disk of the node: request ephemeral-storage in"
    r" spec\.predictor\.resources, so that the pod gets a node with more space, or serve a smaller model\."
)
# What a user reads of a claim on which others have left too little, at a write or before it.
FULL: Final = (
    r"The claim of spec\.predictor\.cache is not used: (No space left on device( \(.+\))?: free space on the claim, or"
    r" use a larger one|\d+ more bytes are needed, and \d+ of them do not fit into the claim beside what pods use: use"
    r" a larger claim)\. This pod has fetched the model for itself\."
)


def find_free(part: int, kind: str) -> int:
    """Return the bytes that are free: 8 parts end in those of the model, 12 in records and configuration."""
    size = _BYTES + (len(ARCHIVE) if kind == "archive" else 0)
    return size * part // 8 // _PAGE * _PAGE if part < 8 else size + (part - 8) * _PAGE


PARTS: Final = pytest.mark.parametrize(
    ("part", "kind"), [*((part, "files") for part in range(20)), *((part, "archive") for part in range(0, 20, 4))]
)


class Place:
    """A model on a hub, and pods, of which all share a claim. One disk has the size that a fetch needs."""

    def __init__(self, root: Path, disk: Path) -> None:
        self.root = root
        self.claim = root / "claim"
        self.filler = disk / "filler"
        for folder in {self.claim, disk}:
            folder.mkdir(parents=True)
        mount_disk(disk, RESERVE + 4 * _BYTES)
        self.hub = Hub()
        self.hub.commit("team/model", FILES)
        self._free = -1

    def fill(self, free: int) -> None:
        """Have the disk filled up to some bytes, once the fetch has found enough space and reads the first file."""
        self._free = free

    def _fill_now(self, *_: object) -> None:
        free, self._free = self._free, -1
        if free >= 0:
            fill_disk(self.filler, free)

    def empty(self) -> None:
        """Have the disk emptied of what others have there."""
        self.filler.unlink()

    def serve(self, story: Callable[[], None]) -> None:
        """Run a story while the hub and the server of archives answer."""
        self.hub.cdn_fault = self._fill_now
        app = web.Application()
        app.router.add_get("/model.tar", self._send_archive)
        with serve_apps(self.hub.build_app(), self.hub.build_cdn(), app) as [self.hub.url, self.hub.cdn, self.site]:
            story()

    async def _send_archive(self, request: web.Request) -> web.Response:
        if request.headers.get("Range") != "bytes=0-0":  # by which the file is listed
            self._fill_now()
        return web.Response(body=ARCHIVE, headers={"ETag": '"a"'})

    def prepare(self, pod: str, *, kind: str = "files", has_claim: bool = True) -> RepositoryModel:
        """Prepare the model in a pod, whose agent has just started."""
        settings = self.make_settings(pod, has_claim=has_claim)
        uri = URI if kind == "files" else f"{self.site}/model.tar"
        preparation = Preparation(ModelSource(name="m", format="triton", storage_uri=uri), settings)
        model = preparation.find_existing() or asyncio.run(preparation.prepare(None))
        self.check_served(settings)
        return model

    def make_settings(self, pod: str, *, has_claim: bool = True) -> Settings:
        """Make the folders and mounts of a pod, unless they are there."""
        settings = Settings(root=self.root / pod)
        for folder in (settings.repository, settings.downloads, settings.storage):
            folder.mkdir(parents=True, exist_ok=True)
        if has_claim and not settings.cache.exists():
            settings.cache.symlink_to(self.claim)
        for key, value in {"HF_ENDPOINT": self.hub.url, "HF_ALLOW_HTTP": "true"}.items():
            (settings.storage / key).write_text(value)
        return settings

    def find_failure(self, pod: str, kind: str) -> Failure | None:
        """Prepare the model in a pod without a claim; return the failure, None without one."""
        try:
            self.prepare(pod, kind=kind, has_claim=False)
        except Failure as failure:
            return failure
        return None

    def check_served(self, settings: Settings) -> None:
        """What Triton would load is the whole model."""
        folder = (settings.repository / "m").resolve()
        paths = [path for path in folder.rglob("*") if path.is_file()]
        found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        assert b'backend: "python"' in found.pop("config.pbtxt")
        del found[".conch.json"]
        assert found == {name: content for name, content in FILES.items() if name != "config.pbtxt"}

    def check_blobs(self, kind: str) -> None:
        """The cache has whole files under their digests, and of each content one."""
        blobs = list((self.claim / ".conch-cache" / "blobs").iterdir())
        assert {hashlib.sha256(blob.read_bytes()).hexdigest() for blob in blobs} == {blob.name for blob in blobs}
        assert len(blobs) <= len(set(FILES.values())) + (kind == "archive")

    def check_left(self) -> None:
        """The cache has each content, and nothing is left over of what was interrupted."""
        cache = self.claim / ".conch-cache"
        digests = {hashlib.sha256(content).hexdigest() for content in FILES.values()}
        assert {blob.name for blob in (cache / "blobs").iterdir()} >= digests
        left = [
            path for path in cache.rglob("*") if path.suffix in {".part", ".new"} or path.name.startswith("format.")
        ]
        assert left == []


@PARTS
def test_a_claim_that_is_full_at_a_point_of_a_fetch(tmp_path: Path, part: int, kind: str) -> None:
    """The pod has the files on its own volume then, a restart serves them, and later pods have the cache."""

    def story() -> None:
        place = Place(tmp_path / "place", tmp_path / "place" / "claim")

        def run() -> None:
            place.fill(find_free(part, kind))
            model = place.prepare("a", kind=kind)
            if model.cache_problem:
                assert re.fullmatch(FULL, describe_unused_cache(model.cache_problem)), model.cache_problem
            place.check_blobs(kind)
            assert place.prepare("a", kind=kind) == model, "an agent that starts again serves what is laid out"
            place.prepare("b", kind=kind)
            place.check_blobs(kind)
            place.empty()
            assert place.prepare("c", kind=kind).cache_problem == ""
            place.check_blobs(kind)
            place.check_left()

        place.serve(run)

    run_apart(story)


@PARTS
def test_a_volume_of_a_pod_that_is_full_at_a_point_of_a_fetch(tmp_path: Path, part: int, kind: str) -> None:
    """Nothing half is laid out; the agent resumes when there is space."""

    def story() -> None:
        place = Place(tmp_path / "place", tmp_path / "place" / "a" / "models")

        def run() -> None:
            place.fill(find_free(part, kind))
            if failure := place.find_failure("a", kind):
                assert failure.reason == Reason.DISK_FULL, failure
                uri = URI if kind == "files" else f"{place.site}/model.tar"
                assert re.fullmatch(re.escape(uri) + LACKING, failure.message), failure.message
                assert not (place.root / "a" / "models" / "repository" / "m").exists()
                place.empty()
            model = place.prepare("a", kind=kind, has_claim=False)
            assert place.prepare("a", kind=kind, has_claim=False) == model

        place.serve(run)

    run_apart(story)


@pytest.mark.parametrize("is_new", [True, False])
def test_a_claim_that_is_read_only(tmp_path: Path, is_new: bool) -> None:
    """New, or with the model in it: the pod has a folder for its links nowhere."""

    def story() -> None:
        place = Place(tmp_path / "place", tmp_path / "place" / "claim")

        def run() -> None:
            if not is_new:
                assert place.prepare("first").cache_problem == ""
            make_read_only(place.claim)
            message = describe_unused_cache(place.prepare("a").cache_problem)
            assert re.fullmatch(
                r"The claim of spec\.predictor\.cache is not used: Read-only file system \(\S+\): let the uid of the"
                r" pod write to the claim\. This pod has fetched the model for itself\.",
                message,
            ), message

        place.serve(run)

    run_apart(story)
