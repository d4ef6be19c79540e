"""Mirrors of a real store: a fetch goes on where a place fails, and never mixes contents that are not known."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from conch_agent.prepare import Preparation
from conch_agent.record import compute_digest
from conch_agent.repository_model import RepositoryModel
from conch_agent.settings import Settings
from conch_contract import Mirror, ModelSource
from conch_contract.report import Origin
from tests.serving.pod import Pod
from tests.serving.processes import until
from tests.serving.store import Store
from tests.serving.test_formats import DOUBLE, X
from tests.serving.test_lifecycle import SIZE, build_double
from tests.support.relay import Relay

FILES = {"model.py": DOUBLE.encode(), "factor.py": b"FACTOR = 2", "weights.bin": os.urandom(SIZE)}
DIGEST = compute_digest({name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()})
PRIMARY, MIRROR = "primary", "mirror"


@pytest.fixture
def lines(store: Store) -> Iterator[dict[str, Relay]]:
    """A line to the store for the Secret of each place."""
    relays = {name: Relay(store.port) for name in (PRIMARY, MIRROR)}
    yield relays
    for relay in relays.values():
        relay.close()


@pytest.fixture
def secrets(store: Store, pod: Pod, lines: dict[str, Relay]) -> None:
    for name, line in lines.items():
        pod.write_secret({**store.secret, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{line.port}"}, name)


@pytest.fixture
def settings(pod: Pod) -> Settings:
    settings = Settings(root=pod.root)
    settings.repository.mkdir(parents=True)
    settings.downloads.mkdir(parents=True)
    return settings


def _source(uri: str, *mirrors: str, digest: str = "") -> ModelSource:
    return ModelSource(
        name="m",
        format="python",
        storage_uri=uri,
        secret=PRIMARY,
        mirrors=tuple(Mirror(uri=mirror, secret=MIRROR) for mirror in mirrors),
        digest=digest,
    )


def _put(store: Store, prefix: str, **changed: bytes) -> str:
    files = FILES | {name.replace("_", "."): content for name, content in changed.items()}
    store.put("models", {f"{prefix}/{name}": content for name, content in files.items()})
    return f"s3://models/{prefix}"


async def _prepare_broken(source: ModelSource, settings: Settings, line: Relay) -> RepositoryModel:
    """Prepare a model, and end the connections to its storageUri when most of the bytes have passed."""
    line.ends_after = SIZE * 7 // 8
    return await Preparation(source, settings).prepare(None)


@pytest.mark.usefixtures("secrets")
def test_a_pod_starts_from_the_mirror_while_the_store_is_away(store: Store, pod: Pod, lines: dict[str, Relay]) -> None:
    store.put("models", build_double("copy", 2))
    lines[PRIMARY].refuses = True
    pod.write_manifest(_source("s3://models/away-primary", "s3://models/copy"))
    pod.start()
    pod.until_ready()
    assert pod.infer("m", X)["y"] == [3.0, 4.0]
    report = pod.until_reported()
    assert report.origin == Origin.MIRROR
    [warning] = report.warnings
    assert warning.reason == "ServedFromMirror"
    assert warning.message.startswith(
        "The files are from s3://models/copy, one of storage.mirrors: s3://models/away-primary"
    )
    assert "cannot be reached" in warning.message


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("problem", ["refused", "missing", "no bucket"])
async def test_the_mirror_serves_where_the_store_refuses(
    store: Store, pod: Pod, settings: Settings, problem: str
) -> None:
    store.put("models", build_double("good", 2))
    if problem == "refused":
        pod.write_secret({"AWS_SECRET_ACCESS_KEY": "wrong"}, PRIMARY)
    uri = {"refused": "s3://models/good", "missing": "s3://models/none", "no bucket": "s3://no-bucket-here/m"}[problem]
    model = await Preparation(_source(uri, "s3://models/good"), settings).prepare(None)
    assert (model.origin, model.uri) == (Origin.MIRROR, "s3://models/good")
    assert uri in model.detour


@pytest.mark.usefixtures("secrets")
async def test_a_broken_download_goes_on_at_the_mirror(
    store: Store, settings: Settings, lines: dict[str, Relay]
) -> None:
    source = _source(_put(store, "broken"), _put(store, "broken-copy"), digest=DIGEST)
    model = await _prepare_broken(source, settings, lines[PRIMARY])
    assert (model.digest, model.uri) == (DIGEST, "s3://models/broken-copy")
    assert lines[MIRROR].passed < SIZE, "it goes on; what was read ahead of the bytes on disk is lost"


@pytest.mark.usefixtures("secrets")
async def test_files_of_two_places_are_not_mixed_while_the_digest_is_unknown(
    store: Store, settings: Settings, lines: dict[str, Relay]
) -> None:
    weights = os.urandom(SIZE)
    source = _source(_put(store, "unknown"), _put(store, "unknown-copy", weights_bin=weights))
    model = await _prepare_broken(source, settings, lines[PRIMARY])
    assert model.uri == "s3://models/unknown-copy"
    assert (settings.repository / "m" / "1" / "weights.bin").read_bytes() == weights
    assert lines[MIRROR].passed > SIZE


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("is_cached", [False, True])
async def test_a_mirror_of_another_content_spoils_nothing(
    store: Store, settings: Settings, lines: dict[str, Relay], tmp_path: Path, *, is_cached: bool
) -> None:
    """The first mirror continues the file with other bytes: it is passed over, and nothing of it is left."""
    if is_cached:
        (settings.root / "cache").symlink_to(tmp_path)
    other, right = _put(store, "spoilt-other", weights_bin=os.urandom(SIZE)), _put(store, "spoilt-right")
    source = _source(_put(store, "spoilt"), other, right, digest=DIGEST)
    model = await _prepare_broken(source, settings, lines[PRIMARY])
    assert (model.digest, model.uri) == (DIGEST, right)
    assert f"{other} has other files than storageUri" in model.detour


@pytest.mark.usefixtures("secrets")
def test_all_places_are_in_the_message_when_all_fail(pod: Pod, lines: dict[str, Relay]) -> None:
    lines[PRIMARY].refuses = True
    pod.write_manifest(_source("s3://models/nothing-0", "s3://models/nothing-1", "s3://models/nothing-2"))
    pod.start_agent()
    report = pod.until_reason("Unreachable")
    for part in ("storageUri: s3://models/nothing-0", "mirrors[0]: ", "s3://models/nothing-1", "s3://models/nothing-2"):
        assert part in report.message
    assert len(report.message) <= 2000
    lines[PRIMARY].refuses = False
    until(lambda: pod.model().reason == "Empty", "the store answers", pod.agent)
