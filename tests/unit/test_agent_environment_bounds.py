"""Bounds of Python environments, with pip and an index: sizes, pip's output, and what a failure leaves."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from conch_agent.cache import Cache, CacheUnusableError, open_cache
from conch_agent.disk import RESERVE
from conch_agent.environments import Environments, parse_index, read_requirements
from conch_agent.reasons import Failure, Reason
from conch_agent.settings import Settings
from tests.support.namespaces import mount_disk, run_apart
from tests.support.web import serve_apps
from tests.support.wheels import build_wheel

PLACE = "s3://models/m: requirements.txt"
LARGE = build_wheel("factor", "3.0", {"factor.py": "FACTOR = 3", "large.bin": "0" * 3_000_000}, compressed=True)
SMALL = build_wheel("factor", "3.0", {"factor.py": "FACTOR = 3"})


@dataclass
class PackageIndex:
    """An index with wheels, and with one that has no end."""

    wheels: Mapping[str, bytes] = field(default_factory=dict)
    names: tuple[str, ...] = ()  # of wheels that are listed and not sent
    endless: str = ""
    sent: int = 0

    def build_app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/factor/", self._list)
        app.router.add_get("/factor/{name}", self._send)
        return app

    async def _list(self, _: web.Request) -> web.Response:
        names = [*self.wheels, *self.names, *([self.endless] if self.endless else [])]
        links = "".join(f'<a href="/factor/{name}">{name}</a>' for name in names)
        return web.Response(text=f"<!DOCTYPE html><html><body>{links}</body></html>", content_type="text/html")

    async def _send(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if name != self.endless:
            return web.Response(body=self.wheels[name])
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(256 * 1024))
            self.sent += 256 * 1024


class Model:
    """A model with a requirements.txt, in a pod."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "downloads" / "m"
        self.home.mkdir(parents=True)
        self.cache: Cache | None = None

    def use_cache(self, size: int) -> None:
        settings = Settings(root=self.root / "pod", cache_bytes=size)
        settings.cache.mkdir(parents=True)
        settings.pod_id.parent.mkdir(parents=True)
        self.cache = open_cache(settings)
        assert self.cache
        self.home = self.cache.folder / "m"
        self.home.mkdir()

    async def install(self, text: str, *wheels: tuple[str, bytes], url: str = "", max_bytes: int = 0) -> Path:
        files = self.root / "files"
        (files / "wheels").mkdir(parents=True, exist_ok=True)
        (files / "requirements.txt").write_text(text)
        paths = [files / "wheels" / name for name, _ in wheels]
        for path, (_, content) in zip(paths, wheels, strict=True):
            path.write_bytes(content)
        requirements = read_requirements(files / "requirements.txt", PLACE, paths, is_signed=False)
        index = parse_index({"PIP_INDEX_URL": url, "NO_PROXY": "*"} if url else {})
        return await Environments(self.home, self.cache, PLACE, index, max_bytes).ensure(requirements)

    def find_failure(self, text: str, *wheels: tuple[str, bytes], url: str = "", max_bytes: int = 0) -> Failure:
        """Fail to install; nothing is left over."""
        with pytest.raises(Failure) as caught:
            asyncio.run(self.install(text, *wheels, url=url, max_bytes=max_bytes))
        assert list(self.home.iterdir()) == []
        assert str(self.root) not in caught.value.message
        return caught.value


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return Model(tmp_path)


@pytest.mark.parametrize("has_index", [False, True])
def test_packages_that_are_larger_than_the_largest_model(model: Model, *, has_index: bool) -> None:
    """Their declared size decides, before they are unpacked."""
    index = PackageIndex(dict([LARGE]))
    with serve_apps(index.build_app()) as [url]:
        wheels = [] if has_index else [LARGE]
        failure = model.find_failure("factor==3.0", *wheels, url=url if has_index else "", max_bytes=1_000_000)
    assert failure.reason == Reason.TOO_LARGE
    assert failure.message == (
        f"{PLACE}: the packages have 3000249 bytes, unpacked; this installation takes models up to 1000000. Remove"
        " packages that the model does not need, or raise models.maxModelBytes of the chart."
    )


def test_packages_as_large_as_the_largest_model(model: Model) -> None:
    assert asyncio.run(model.install("factor==3.0", LARGE, max_bytes=3_000_249)).is_dir()
    assert [path.name for path in model.home.iterdir()] == [".environment"]


def test_wheels_that_are_not_installed_do_not_count(model: Model) -> None:
    """Those of other platforms and packages, which may lie in the folder too."""
    name, content = LARGE
    foreign = [(name.replace("any", platform), content) for platform in ("win_amd64", "macosx_11_0_arm64")]
    others = [
        build_wheel("other", "1.0", {"large.bin": "0" * 3_000_000}),
        ("another-1.0-py3-none-any.whl", b"no wheel"),
    ]
    wheels = [LARGE, *foreign, *others]
    assert asyncio.run(model.install("factor==3.0", *wheels, max_bytes=3_000_249)).is_dir()


def test_a_wheel_of_an_index_without_an_end(model: Model) -> None:
    index = PackageIndex(endless=SMALL[0])
    with serve_apps(index.build_app()) as [url]:
        failure = model.find_failure("factor==3.0", url=url, max_bytes=1_000_000)
    assert failure.reason == Reason.TOO_LARGE
    assert "pip has fetched" in failure.message
    assert "this installation takes models up to 1000000" in failure.message


@pytest.mark.parametrize("has_index", [False, True])
def test_packages_for_which_the_disk_has_no_space(tmp_path: Path, *, has_index: bool) -> None:
    def story() -> None:
        mount_disk(tmp_path, RESERVE + 2_000_000)
        model, index = Model(tmp_path), PackageIndex(endless=SMALL[0])
        with serve_apps(index.build_app()) as [url]:
            wheels = [] if has_index else [LARGE]
            failure = model.find_failure("factor==3.0", *wheels, url=url if has_index else "")
        assert failure.reason == Reason.DISK_FULL, failure
        assert failure.message.startswith(PLACE), failure
        assert "request ephemeral-storage in spec.predictor.resources" in failure.message, failure

    run_apart(story)


@pytest.mark.parametrize("index", [PackageIndex(dict([LARGE])), PackageIndex(endless=SMALL[0])])
def test_packages_that_the_claim_cannot_take(model: Model, index: PackageIndex) -> None:
    """The message has the limit as it is set, also where wheels are on the claim beside the packages."""
    model.use_cache(1_000_000)
    with serve_apps(index.build_app()) as [url], pytest.raises(CacheUnusableError) as caught:
        asyncio.run(model.install("factor==3.0", url=url))
    assert "do not fit into the sizeLimit of 1000000 bytes" in str(caught.value)
    assert list(model.home.iterdir()) == []


def test_a_wheel_whose_list_of_files_is_large(model: Model) -> None:
    """It would be read into memory at once."""
    size = 20 * 1024 * 1024
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, size, 0, 0)  # end of central directory record
    failure = model.find_failure("factor==3.0", (SMALL[0], bytes(size) + end))
    assert failure.reason == Reason.ENVIRONMENT_FAILED
    assert f"its list of files has {size} bytes; up to {16 * 1024 * 1024} are read" in failure.message


def test_long_output_of_pip(model: Model) -> None:
    """The message has the last error, however long those before it are."""
    index = PackageIndex(names=tuple(f"factor-1.{number}-py3-none-any.whl" for number in range(20_000)))
    with serve_apps(index.build_app()) as [url]:
        failure = model.find_failure("factor==3.0", url=url)
    assert failure.reason == Reason.ENVIRONMENT_FAILED
    assert "No matching distribution found for factor==3.0" in failure.message
    assert len(failure.message) < 2000


def test_messages_name_no_file_of_the_pod(model: Model) -> None:
    content = json.dumps({"no": "wheel"}).encode()
    failure = model.find_failure("factor==3.0", (SMALL[0], content))
    assert failure.reason == Reason.ENVIRONMENT_FAILED
    assert f"{PLACE}: the wheel {SMALL[0]} cannot be read: File is not a zip file. Upload it anew." == failure.message
    broken = build_wheel("factor", "3.0", {"factor.py": "FACTOR = 3"})[1].replace(
        b"Wheel-Version: 1.0", b"Wheel-Version: x.y"
    )
    failure = model.find_failure("factor==3.0", (SMALL[0], broken))
    assert "pip cannot install the packages from the folder wheels/" in failure.message
    index = PackageIndex(dict([SMALL]))
    with serve_apps(index.build_app()) as [url]:
        failure = model.find_failure(f"# one\n\nfactor==3.0 --hash=sha256:{'0' * 64}", url=url)
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in failure.message
    assert "(line" not in failure.message


def test_an_installation_that_is_cancelled_leaves_nothing(model: Model) -> None:
    index = PackageIndex(endless=SMALL[0])

    async def cancel(url: str) -> None:
        task = asyncio.create_task(model.install("factor==3.0", url=url))
        async with asyncio.timeout(60):
            while not index.sent:  # noqa: ASYNC110  in the thread of the index
                await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with serve_apps(index.build_app()) as [url]:
        asyncio.run(cancel(url))
    assert list(model.home.iterdir()) == []
