"""Mirrors of a model: the next place is tried where one fails, and the digest decides what is the same content."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from conch_agent.places import LONGEST, combine, try_places
from conch_agent.prepare import Preparation
from conch_agent.reasons import Failure, Reason
from conch_agent.record import compute_digest
from conch_agent.repository_model import RepositoryModel
from conch_agent.settings import Settings
from conch_agent.sources.https import HttpsSource
from conch_contract import Mirror, ModelSource, Verification
from conch_contract.manifest import select_model
from conch_contract.report import Origin

RIGHT, OTHER = b"class TritonPythonModel: ...\n", b"class TritonPythonModel: pass\n"
DIGEST = compute_digest({"model.py": hashlib.sha256(RIGHT).hexdigest()})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(root=tmp_path / "pod")
    settings.repository.mkdir(parents=True)
    settings.downloads.mkdir(parents=True)
    return settings


def _place(folder: Path, content: bytes) -> str:
    folder.mkdir()
    (folder / "model.py").write_bytes(content)
    return f"file://{folder}"


def _source(uri: str, *mirrors: str, digest: str = "", expected: str = "") -> ModelSource:
    return ModelSource(
        name="m",
        format="python",
        storage_uri=uri,
        mirrors=tuple(Mirror(uri=mirror) for mirror in mirrors),
        verify=Verification(digest=expected) if expected else None,
        digest=digest,
    )


async def _prepare(source: ModelSource, settings: Settings) -> RepositoryModel:
    preparation = Preparation(source, settings)
    preparation.pin(source)
    return await preparation.prepare(None)


async def test_the_mirror_serves_where_storage_uri_has_nothing(tmp_path: Path, settings: Settings) -> None:
    mirror = _place(tmp_path / "mirror", RIGHT)
    model = await _prepare(_source("file:///missing", mirror), settings)
    assert (model.digest, model.origin, model.uri) == (DIGEST, Origin.MIRROR, mirror)
    assert "file:///missing" in model.detour
    assert (settings.repository / "m" / "1" / "model.py").read_bytes() == RIGHT


async def test_mirrors_are_not_tried_where_storage_uri_serves(tmp_path: Path, settings: Settings) -> None:
    uri = _place(tmp_path / "primary", RIGHT)
    model = await _prepare(_source(uri, "file:///missing"), settings)
    assert (model.origin, model.uri, model.detour) == (Origin.STORAGE, uri, "")


@pytest.mark.parametrize("kind", ["pinned", "verified"])
async def test_a_place_with_other_content_is_passed_over(tmp_path: Path, settings: Settings, kind: str) -> None:
    uri, other = _place(tmp_path / "primary", OTHER), _place(tmp_path / "other", OTHER[:-1])
    right = _place(tmp_path / "right", RIGHT)
    digests = {"digest": DIGEST} if kind == "pinned" else {"expected": DIGEST}
    model = await _prepare(_source(uri, other, right, **digests), settings)
    assert (model.digest, model.uri) == (DIGEST, right)
    assert uri in model.detour
    assert f"{other} has" in model.detour


async def test_a_mirror_with_other_content_than_the_revision_is_named(tmp_path: Path, settings: Settings) -> None:
    other = _place(tmp_path / "other", OTHER)
    with pytest.raises(Failure) as raised:
        await _prepare(_source("file:///missing", other, digest=DIGEST), settings)
    assert raised.value.reason == Reason.NOT_FOUND, "that of storageUri"
    assert f"mirrors[0]: SourceChanged: {other} has other files than storageUri" in raised.value.message
    assert not list(settings.repository.iterdir())


async def test_files_that_are_not_the_content_are_fetched_once(tmp_path: Path, settings: Settings) -> None:
    """A retry lists each place, and fetches nothing while the listings are the same."""
    uri, other = _place(tmp_path / "primary", OTHER), _place(tmp_path / "other", OTHER)
    source = _source(uri, other, digest=DIGEST)
    preparation = Preparation(source, settings)
    with pytest.raises(Failure):
        await preparation.prepare(None)
    fetched: list[str] = []
    with pytest.raises(Failure) as raised:
        await preparation.prepare(None, lambda: fetched.append("again"))
    assert fetched == []
    assert raised.value.reason == Reason.CONTENT_CHANGED
    (tmp_path / "other" / "model.py").write_bytes(RIGHT)
    assert (await preparation.prepare(None)).uri == other


async def test_a_model_that_is_laid_out_needs_no_mirror(tmp_path: Path, settings: Settings) -> None:
    """Without a digest any content is accepted, and so is that which Triton can load."""
    uri, mirror = _place(tmp_path / "primary", RIGHT), _place(tmp_path / "mirror", OTHER)
    preparation = Preparation(_source(uri, mirror), settings)
    model = await preparation.prepare(None)
    (tmp_path / "primary" / "model.py").unlink()
    assert await preparation.prepare(model) is model


@pytest.mark.parametrize("reason", [Reason.DISK_FULL, Reason.INVALID_CONFIG, Reason.KEY_MISSING])
def test_a_failure_of_the_pod_or_the_model_ends_the_attempts(reason: Reason) -> None:
    tried: list[str] = []

    async def attempt(place: ModelSource, failures: object) -> None:
        del failures
        tried.append(place.storage_uri)
        raise Failure(reason, "It is full.")

    with pytest.raises(Failure, match=r"It is full\."):
        asyncio.run(try_places(_source("file:///a", "file:///b").places, attempt))
    assert tried == ["file:///a"]


def test_the_message_about_all_places_is_bounded_and_names_each() -> None:
    failures = [Failure(Reason.UNREACHABLE, f"s3://place-{number} " + "x" * 3000, number) for number in range(5)]
    failure = combine(failures)
    assert len(failure.message) <= LONGEST + 200
    assert all(f"s3://place-{number}" in failure.message for number in range(5))
    assert failure.is_outage
    assert failure.retry_after == 0


def test_a_place_that_refuses_is_no_outage() -> None:
    away, refused = Failure(Reason.UNREACHABLE, "away"), Failure(Reason.ACCESS_DENIED, "refused")
    assert not combine([away, refused]).is_outage
    assert combine([away, Failure(Reason.FETCH_FAILED, "503", is_outage=True)]).is_outage


def test_the_places_of_a_model_of_a_repository_are_its_folders() -> None:
    source = _source("s3://models/all/", "s3://copies/all")
    wire = {**source.model_dump(by_alias=True, exclude_defaults=True), "format": "repository", "name": "all"}
    found = ModelSource.model_validate(select_model(wire, "pre"))
    assert [place.storage_uri for place in found.places] == ["s3://models/all/pre", "s3://copies/all/pre"]


def test_object_versions_are_those_of_storage_uri_alone() -> None:
    source = _source("s3://models/m", "s3://copies/m").model_copy(update={"object_versions": {"": "v1"}})
    assert [place.object_versions for place in source.places] == [{"": "v1"}, {}]


async def test_a_revision_of_a_listing_has_no_mirror_before_its_digest_is_known(
    tmp_path: Path, settings: Settings
) -> None:
    """A mirror has another listing, so nothing shows that its files are those of the revision."""
    mirror = _place(tmp_path / "mirror", RIGHT)
    source = _source("file:///missing", mirror).model_copy(update={"source_identity": "a"})
    with pytest.raises(Failure, match="file:///missing") as raised:
        await _prepare(source, settings)
    assert mirror not in raised.value.message
    pinned = source.model_copy(update={"digest": DIGEST})
    model = await _prepare(pinned, settings)
    assert (model.uri, model.source_identity) == (mirror, "")


SIGNED = {
    "of S3": ("127.0.0.1:1/m.onnx?X-Amz-Signature=c2ln&X-Amz-Date=1", "127.0.0.1:1/m.onnx?..."),
    "of Azure": ("127.0.0.1:1/m.onnx?sp=rl&sig=c2ln", "127.0.0.1:1/m.onnx?..."),
    "of Google": ("127.0.0.1:1/m.onnx?X-Goog-Signature=c2ln", "127.0.0.1:1/m.onnx?..."),
    "a token": ("127.0.0.1:1/m.onnx?private_token=c2ln", "127.0.0.1:1/m.onnx?..."),
    "a password": ("user:c2ln@127.0.0.1:1/m.onnx", "...@127.0.0.1:1/m.onnx"),
}


@pytest.mark.parametrize("case", SIGNED)
async def test_a_signed_url_is_in_no_message(case: str) -> None:
    """Its query gives access to who reads the status, an event or a log."""
    url, shown = SIGNED[case]
    place = ModelSource(name="m", format="onnx", storage_uri=f"https://{url}")

    async def attempt(place: ModelSource, failures: Sequence[Failure]) -> None:
        del failures
        await HttpsSource(place.storage_uri, {}).list_files()

    with pytest.raises(Failure) as caught:
        await try_places([place, place], attempt)
    for text in (caught.value.message, str(caught.value)):
        assert f"https://{shown} cannot be reached" in text
        assert "c2ln" not in text
