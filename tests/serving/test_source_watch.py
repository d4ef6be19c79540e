"""A watched source: pods report what the store has now, and keep the files that they have fetched."""

from __future__ import annotations

import time

import pytest

from conch_contract import ModelManifest, ModelSource, ModelState, SourceReport, WatchedSource
from conch_contract.formats import FormatName
from tests.serving.pod import Pod
from tests.serving.processes import until
from tests.serving.store import Store
from tests.serving.test_formats import DOUBLE, X
from tests.support.pipeline import PIPELINE

REFRESH = 0.4  # seconds


def double(folder: str, factor: int) -> dict[str, bytes]:
    return {f"{folder}/model.py": DOUBLE.encode(), f"{folder}/factor.py": f"FACTOR = {factor}".encode()}


def write(pod: Pod, source: ModelSource, seconds: float = REFRESH) -> None:
    """Write the manifest of a pod that watches the source."""
    watched = WatchedSource(
        model=source.name, format=source.format, storage_uri=source.storage_uri, refresh_seconds=seconds
    )
    pod.write_whole_manifest(ModelManifest(models=(source,), watched=(watched,)))


def build_source(folder: str, form: FormatName = "python", name: str = "m", identity: str = "") -> ModelSource:
    return ModelSource(name=name, format=form, storage_uri=f"s3://models/{folder}", source_identity=identity)


def read(pod: Pod) -> SourceReport:
    """The report of the one source; without a field where there is none yet."""
    return next(iter(pod.report.sources), SourceReport(model=""))


@pytest.fixture
def watching(store: Store, pod: Pod, request: pytest.FixtureRequest) -> str:
    """The folder of a model that a pod serves and watches."""
    folder = f"watched-{request.node.name.replace('_', '-')}"
    store.put("models", double(folder, 2))
    pod.write_secret(store.secret)
    write(pod, build_source(folder))
    pod.start()
    pod.until_ready()
    until(lambda: read(pod).identity != "", "the source was read twice", pod.agent)
    return folder


def test_new_content_is_reported_and_what_serves_stays(store: Store, pod: Pod, watching: str) -> None:
    before = read(pod)
    assert before.fetched == before.identity
    assert before.message == ""
    store.put("models", double(watching, 3))
    until(lambda: read(pod).identity != before.identity, "the new listing is reported", pod.agent)
    after = read(pod)
    assert after.fetched == before.fetched
    assert before.since < after.since <= time.time()
    assert pod.infer("m", X) == {"y": [3.0, 4.0]}
    assert pod.model().state == ModelState.READY


def test_an_upload_that_has_not_ended_is_not_reported(store: Store, pod: Pod, watching: str) -> None:
    """File by file, each time before the listing was read twice."""
    before, seen = read(pod), set()
    for number in range(12):
        store.put("models", {f"{watching}/part-{number}.txt": b"x"})
        end = time.monotonic() + REFRESH / 2
        while time.monotonic() < end:
            seen.add(read(pod).identity)
            time.sleep(0.02)
    assert seen == {before.identity}
    until(lambda: read(pod).identity not in {before.identity, ""}, "the whole upload is reported", pod.agent)


def test_content_that_returns_is_the_one_of_before(store: Store, pod: Pod, watching: str) -> None:
    before = read(pod)
    store.put("models", {f"{watching}/note.txt": b"one more"})
    until(lambda: read(pod).identity != before.identity, "another file is reported", pod.agent)
    store.bucket("models").delete(f"{watching}/note.txt")
    until(lambda: read(pod).identity == before.identity, "the listing of before is reported", pod.agent)
    assert read(pod).since > before.since


def test_a_source_that_cannot_be_read_is_reported_until_it_can(store: Store, pod: Pod, watching: str) -> None:
    before = read(pod)
    for name in ("model.py", "factor.py"):
        store.bucket("models").delete(f"{watching}/{name}")
    until(lambda: read(pod).message != "", "the failure is reported", pod.agent)
    assert f"s3://models/{watching}" in read(pod).message
    assert read(pod).identity == before.identity
    assert pod.ready
    store.put("models", double(watching, 2))
    until(lambda: read(pod).message == "", "the source is read again", pod.agent)


def test_a_revision_of_new_content_serves_that_content_alone(store: Store, pod: Pod, watching: str) -> None:
    before = read(pod)
    store.put("models", double(watching, 3))
    until(lambda: read(pod).identity != before.identity, "the new listing is reported", pod.agent)
    wanted = read(pod).identity
    write(pod, build_source(watching, identity=before.identity))  # it is gone by now
    failed = pod.until_reason("SourceChanged")
    assert "has changed again since the watch read it" in failed.message
    assert pod.infer("m", X) == {"y": [3.0, 4.0]}, "what served goes on"
    write(pod, build_source(watching, identity=wanted))
    until(lambda: pod.infer("m", X) == {"y": [4.5, 6.0]}, "the new content serves", pod.agent)
    pod.until_reported()
    assert read(pod).fetched == wanted


def test_a_repository_is_watched_as_a_whole(store: Store, pod: Pod) -> None:
    store.put("models", {f"watched-set/{name}": content for name, content in PIPELINE.items()})
    pod.write_secret(store.secret)
    write(pod, build_source("watched-set", "repository", "pipeline"))
    pod.start()
    pod.until_ready()
    until(lambda: read(pod).identity != "", "the source was read twice", pod.agent)
    before = read(pod)
    assert before.fetched == before.identity
    store.put("models", {f"watched-set/another/{name}": content for name, content in double("1", 2).items()})
    until(lambda: read(pod).identity != before.identity, "another model is reported", pod.agent)
    assert read(pod).fetched == before.fetched
    assert "another" not in {model.name for model in pod.report.models}
