"""Files that are not those that storage.verify means are not laid out, and the message has what they are."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from conch_agent.expansion import list_models
from conch_agent.prepare import Preparation
from conch_agent.reasons import Failure, Reason
from conch_agent.repository_model import RepositoryModel
from conch_agent.settings import Settings
from conch_agent.verification import Checks
from conch_contract import ModelSource, Verification
from tests.support import filetypes

MODEL = b"class TritonPythonModel: ...\n"
# As docs/serving-image.md has it: what a user runs in the folder of a model.
COMMAND = "find . -type f -not -path '*/.*' -printf '%P\\0' | LC_ALL=C sort -z | xargs -0 sha256sum -- | sha256sum"


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    folder = tmp_path / "origin"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text('backend: "python"\n')
    (folder / "1" / "model.py").write_bytes(MODEL)
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(root=tmp_path / "pod")
    settings.repository.mkdir(parents=True)
    settings.downloads.mkdir(parents=True)
    return settings


def _source(uri: str | Path, digest: str = "") -> ModelSource:
    return ModelSource(name="m", format="triton", storage_uri=f"file://{uri}", verify=Verification(digest=digest))


def _read_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _run_sha256sum(file: Path) -> str:
    return subprocess.run(["sha256sum", file], check=True, capture_output=True, text=True).stdout.split()[0]


def compute_digest(folder: Path) -> str:
    line = subprocess.run(COMMAND, shell=True, cwd=folder, check=True, capture_output=True, text=True).stdout  # noqa: S602  the line of the docs
    return f"sha256:{line.split()[0]}"


async def _prepare(source: ModelSource, settings: Settings) -> RepositoryModel:
    return await Preparation(source, settings).prepare(None)


async def _refusal(source: ModelSource, settings: Settings) -> Failure:
    with pytest.raises(Failure) as raised:
        await _prepare(source, settings)
    assert not list(settings.repository.iterdir()), "nothing of it reaches Triton"
    return raised.value


def test_the_command_is_that_of_the_docs() -> None:
    assert f"    {COMMAND}\n" in (Path(__file__).parents[2] / "docs" / "serving-image.md").read_text()


async def test_a_folder_with_the_digest_that_its_user_computes_is_laid_out(origin: Path, settings: Settings) -> None:
    (origin / "1" / "größe 'a'.txt").write_bytes(b"")
    (origin / ".git").mkdir()
    (origin / ".git" / "HEAD").write_text("ref: refs/heads/main")
    digest = compute_digest(origin)
    model = await _prepare(_source(origin, digest), settings)
    assert model.digest == digest
    assert model.verified == ("Digest",)
    assert (settings.repository / "m" / "1" / "model.py").read_bytes() == MODEL


async def test_a_folder_with_another_digest_is_not(origin: Path, settings: Settings) -> None:
    meant = compute_digest(origin)
    (origin / "1" / "model.py").write_bytes(MODEL.replace(b"...", b"evil"))
    failure = await _refusal(_source(origin, meant), settings)
    assert failure.reason == Reason.DIGEST_MISMATCH
    both = f"has the digest {compute_digest(origin)}, and storage.verify.digest is {meant}. Nothing of it is served."
    assert failure.message.startswith(f"file://{origin} {both}")


async def test_a_file_has_the_digest_that_sha256sum_prints_or_that_of_the_status(
    origin: Path, settings: Settings
) -> None:
    file = origin / "1" / "model.py"
    source = _source(file, f"sha256:{_run_sha256sum(file)}").model_copy(update={"format": "python"})
    model = await _prepare(source, settings)
    assert model.verified == ("Digest",)
    shown = source.model_copy(update={"verify": Verification(digest=model.digest)})
    assert (await _prepare(shown, settings)).verified == ("Digest",)


async def test_the_digest_of_one_file_is_not_that_of_a_folder_with_it(origin: Path, settings: Settings) -> None:
    """Else a store could choose its name, and thereby what Triton does with it."""
    (origin / "config.pbtxt").unlink()
    failure = await _refusal(_source(origin, f"sha256:{hashlib.sha256(MODEL).hexdigest()}"), settings)
    assert failure.reason == Reason.DIGEST_MISMATCH


async def test_a_store_does_not_choose_the_folder_of_a_file_that_is_meant(tmp_path: Path, settings: Settings) -> None:
    """It lists the folder 1/model.py below the key that the URI names, of which the end is the same."""
    folder = tmp_path / "1" / "model.py"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_bytes(MODEL)
    source = _source(folder, f"sha256:{hashlib.sha256(MODEL).hexdigest()}").model_copy(update={"format": "python"})
    assert (await _refusal(source, settings)).reason == Reason.DIGEST_MISMATCH


@pytest.mark.parametrize(
    ("uri", "is_meant"),
    [
        ("https://host/a%20b/model%2Epy?sig=a/b", True),
        ("https://host/model.tar.gz", False),  # the archive has the name of its file
        ("s3://models/model.py", True),
        ("s3://models/model", False),
    ],
)
def test_the_digest_of_one_file_is_of_the_name_in_the_uri(uri: str, is_meant: bool) -> None:
    checks, files = Checks(uri, f"sha256:{'a' * 64}"), {"model.py": "a" * 64}
    if is_meant:
        assert checks.verify(files) == ("Digest",)
        return
    with pytest.raises(Failure, match=r"and storage\.verify\.digest is"):
        checks.verify(files)


async def test_a_model_that_is_laid_out_is_checked_again_when_its_check_changes(
    origin: Path, settings: Settings
) -> None:
    before = await _prepare(_source(origin), settings)
    same, other = _source(origin, before.digest), _source(origin, f"sha256:{'0' * 64}")
    assert Preparation(_source(origin), settings).find_existing() == before
    assert Preparation(other, settings).find_existing() is None
    assert (await _prepare(same, settings)).verified == ("Digest",)


async def test_a_config_that_was_read_is_the_fetched_one(origin: Path, settings: Settings) -> None:
    """It is read before the fetch. A store with two faces would else configure what no check has seen."""
    async with _serve_two_faces(_read_files(origin), {"config.pbtxt": b'backend: "pythoN"\n'}) as endpoint:
        settings.storage.mkdir()
        for key, value in {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_SKIP_SIGNATURE": "true",
        }.items():
            (settings.storage / key).write_text(value)
        verify = Verification(digest=compute_digest(origin))
        source = ModelSource(name="m", format="triton", storage_uri="s3://models/m", verify=verify)
        failure = await _refusal(source, settings)
        assert failure.reason == Reason.CHANGED
        assert "config.pbtxt changed while the files were fetched" in failure.message
        assert (await _prepare(source, settings)).verified == ("Digest",)


@asynccontextmanager
async def _serve_two_faces(files: Mapping[str, bytes], first: Mapping[str, bytes]) -> AsyncIterator[str]:
    """A bucket `models` with a folder `m`, which returns the contents in `first` when these are read the first time."""
    faces = dict(first)
    entries = "".join(
        f'<Contents><Key>m/{name}</Key><LastModified>2026-01-01T00:00:00Z</LastModified><ETag>"a"</ETag>'
        f"<Size>{len(content)}</Size></Contents>"
        for name, content in files.items()
    )
    listing = f"<?xml version='1.0'?><ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"

    async def answer(request: web.Request) -> web.Response:
        name = request.path.removeprefix("/models/m/")
        if name not in files:
            return web.Response(text=listing, content_type="application/xml")
        content, part = faces.pop(name, files[name]), request.http_range
        headers = {"ETag": '"a"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        if part.start is None:
            return web.Response(body=content, headers=headers)
        body = content[part]
        headers["Content-Range"] = f"bytes {part.start}-{part.start + len(body) - 1}/{len(content)}"
        return web.Response(status=206, body=body, headers=headers)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_a_repository_has_no_digest_of_one_model(origin: Path, settings: Settings) -> None:
    source = _source(origin, f"sha256:{'0' * 64}").model_copy(update={"format": "repository"})
    with pytest.raises(Failure, match=r"storage\.verify\.digest is of one") as raised:
        await list_models(source, settings)
    assert raised.value.reason == Reason.CONFIG_CONFLICT


def test_the_example_and_the_docs_have_the_digest_of_the_model_that_the_tests_upload(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(filetypes.MODEL.read_bytes())
    root = Path(__file__).parents[2]
    file = hashlib.sha256(filetypes.MODEL.read_bytes()).hexdigest()
    assert f"digest: sha256:{file}\n" in (root / "examples" / "digest.yaml").read_text()
    assert f"digest: {compute_digest(tmp_path)}\n" in (root / "docs" / "serving-image.md").read_text()
