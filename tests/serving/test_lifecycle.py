"""Processes that are killed during a fetch or a load: the served model stays complete, and no file is fetched twice."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import threading
import time

import pytest

from conch_contract import ModelSource, ModelState
from tests.serving.pod import Pod
from tests.serving.processes import until
from tests.serving.store import Store
from tests.serving.test_formats import DOUBLE, X
from tests.support.ports import listens
from tests.support.relay import Relay

SIZE = 48 * 1024 * 1024


def build_double(name: str, factor: int) -> dict[str, bytes]:
    return {f"{name}/model.py": DOUBLE.encode(), f"{name}/factor.py": f"FACTOR = {factor}".encode()}


def build_python(uri: str) -> ModelSource:
    return ModelSource(name="m", format="python", storage_uri=uri)


def test_an_agent_killed_in_a_download_goes_on_where_it_was(store: Store, pod: Pod, line: Relay) -> None:
    weights = os.urandom(SIZE)
    files = {"model.py": DOUBLE.encode(), "factor.py": b"FACTOR = 2", "weights.bin": weights}
    store.put("models", {f"killed/{name}": content for name, content in files.items()})
    line.rate = 6 * 1024 * 1024  # half of it takes four seconds, so that the agent is killed before the end
    pod.write_secret({**store.secret, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{line.port}"})
    pod.write_manifest(build_python("s3://models/killed"))
    pod.start()
    until(lambda: pod.model().bytes_fetched > SIZE // 2, "half is fetched", pod.agent)
    assert pod.model().state == ModelState.FETCHING
    assert not list(pod.repository.iterdir())
    assert pod.agent
    pod.agent.kill()
    line.passed, line.rate = 0, 0
    pod.start_agent()
    pod.until_ready()
    assert line.passed < SIZE * 3 // 4, "what was on disk is not fetched again; what was under way is"
    lines = "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files))
    assert pod.model().digest == "sha256:" + hashlib.sha256(lines.encode()).hexdigest()


def test_a_source_that_changes_in_a_download_is_never_mixed(store: Store, pod: Pod, line: Relay) -> None:
    size = 128 * 1024 * 1024  # more than the agent reads at once: eight ranges of 8 MiB
    old, new = os.urandom(size), os.urandom(size)
    store.put("models", {**build_double("mixed", 2), "mixed/weights.bin": old})
    line.rate = 16 * 1024 * 1024
    pod.write_secret({**store.secret, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{line.port}"})
    pod.write_manifest(build_python("s3://models/mixed"))
    pod.start()
    until(lambda: pod.model().bytes_fetched > size // 4, "a quarter is fetched", pod.agent)
    line.rate = 64 * 1024  # the old content must not be through before the new one is there
    store.put("models", {"mixed/weights.bin": new})
    line.rate = 0
    pod.until_ready()
    served = (pod.repository / "m" / "1" / "weights.bin").read_bytes()
    assert hashlib.sha256(served).digest() == hashlib.sha256(new).digest()  # bytes would be compared line by line


def test_a_triton_that_died_gets_its_models_again_without_the_store(store: Store, pod: Pod, line: Relay) -> None:
    store.put("models", build_double("again", 2))
    pod.write_secret({**store.secret, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{line.port}"})
    pod.write_manifest(build_python("s3://models/again"))
    pod.start()
    pod.until_ready()
    line.close()
    before = line.passed
    assert pod.triton
    pod.triton.kill()
    until(lambda: not pod.ready, "not ready without Triton", pod.agent)
    pod.start_triton()
    pod.until_ready()
    assert pod.infer("m", X) == {"y": [3.0, 4.0]}
    assert line.passed == before


def test_an_agent_that_died_neither_fetches_nor_reloads(store: Store, pod: Pod, line: Relay) -> None:
    store.put("models", build_double("calm", 2))
    pod.write_secret({**store.secret, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{line.port}"})
    pod.write_manifest(build_python("s3://models/calm"))
    pod.start()
    pod.until_ready()
    digest, before = pod.model().digest, line.passed
    assert pod.agent
    assert pod.triton
    pod.agent.kill()
    pod.start_agent()
    pod.until_ready()
    assert pod.model().digest == digest
    assert line.passed == before
    assert pod.triton.log.read_text().count('"loading: m:1"') == 1


def test_a_new_content_replaces_the_old_without_a_failed_request(store: Store, pod: Pod) -> None:
    store.put("models", build_double("swap-a", 2) | build_double("swap-b", 3))
    pod.write_secret(store.secret)
    pod.write_manifest(build_python("s3://models/swap-a"))
    pod.start()
    pod.until_ready()
    seen: list[float] = []
    faults: list[str] = []
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            try:
                seen.append(pod.infer("m", X)["y"][0])
            except OSError as error:
                faults.append(str(error))

    threads = [threading.Thread(target=send) for _ in range(3)]
    for thread in threads:
        thread.start()
    pod.write_manifest(build_python("s3://models/swap-b"))
    until(lambda: seen and seen[-1] == 4.5, "the new content answers", pod.agent)
    until(lambda: pod.model().state == ModelState.READY and pod.ready, "settled", pod.agent)
    stop.set()
    for thread in threads:
        thread.join(10)
    assert not faults
    assert set(seen) == {3.0, 4.5}


def test_a_load_that_outlives_its_connection_is_no_failure(store: Store, pod: Pod) -> None:
    slow = DOUBLE.replace(
        "    def execute", "    def initialize(self, args):\n        import time; time.sleep(6)\n\n    def execute"
    )
    store.put("models", {"slow/model.py": slow.encode(), "slow/factor.py": b"FACTOR = 2"})
    pod.write_secret(store.secret)
    pod.write_manifest(build_python("s3://models/slow"))
    pod.start_agent()
    pod.start_triton(age=1000, grace=500)
    until(lambda: pod.model().state == ModelState.LOADING, "loading", pod.agent)
    pod.until_ready()
    assert pod.triton
    assert pod.triton.log.read_text().count('"loading: m:1"') == 1
    assert "LoadFailed" not in (pod.agent.log.read_text() if pod.agent else "")


def test_a_load_that_never_reached_triton_is_sent_again_at_once(store: Store, pod: Pod) -> None:
    store.put("models", build_double("never-reached", 2))
    pod.write_secret(store.secret)
    pod.write_manifest(ModelSource(name="never-reached", format="python", storage_uri="s3://models/never-reached"))
    relay = Relay(pod.grpc, breaks_at=b"never-reached")
    pod.start_agent(f"--triton-grpc-port={relay.port}")
    pod.start_triton()
    pod.until_ready()
    relay.close()
    assert pod.agent
    assert pod.agent.log.read_text().count("the load's answer was lost") == 1


def test_a_connection_that_ends_during_a_read_leaves_the_pod_ready(store: Store, pod: Pod) -> None:
    store.put("models", build_double("read", 2))
    pod.write_secret(store.secret)
    pod.write_manifest(build_python("s3://models/read"))
    relay = Relay(pod.grpc)
    pod.start_agent(f"--triton-grpc-port={relay.port}")
    pod.start_triton(age=600_000)
    pod.until_ready()
    pod.until_reported()
    for _ in range(5):
        relay.breaks_at = b"\0\0"  # any frame of HTTP/2: the next request is lost with its connection
        until(lambda: not relay.breaks_at, "a request is lost")
        lost = time.monotonic()
        while time.monotonic() - lost < 1.5:  # longer than between two looks
            assert pod.ready, "it left the endpoints"
            time.sleep(0.02)
    relay.close()


@pytest.mark.parametrize(("args", "closed"), [([], True), (["--grpc-max-connection-age=600000"], False)])
def test_the_age_of_a_connection_is_the_users_where_given(
    store: Store, pod: Pod, args: list[str], closed: bool
) -> None:
    store.put("models", build_double("age", 2))
    pod.write_secret(store.secret)
    pod.write_manifest(build_python("s3://models/age"))
    pod.start_agent()
    pod.start_triton(*args, age=500)
    pod.until_ready()
    assert is_closed(pod.grpc, within=3) is closed


def is_closed(port: int, within: float) -> bool:
    """Return True if the server ends an HTTP/2 connection without requests."""
    preface, settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0\0\0\x04\0\0\0\0\0"
    acknowledged, ping = b"\0\0\0\x04\x01\0\0\0\0", 6
    deadline = time.monotonic() + within
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(preface + settings + acknowledged)
        with connection.makefile("rb") as answers:
            while (remaining := deadline - time.monotonic()) > 0:
                connection.settimeout(remaining)
                try:
                    head = answers.read(9)
                except TimeoutError:
                    return False
                if len(head) < 9:
                    return True
                content = answers.read(int.from_bytes(head[:3], "big"))
                if head[3] == ping and not head[4]:  # its answer lets the server close at once
                    connection.sendall(head[:4] + b"\x01" + head[5:] + content)
    return False


def test_an_open_triton_that_takes_over_unseen_is_not_used_either(store: Store, pod: Pod) -> None:
    """The new Triton starts before any model is loaded, so the index does not show the restart."""
    store.put("models", build_double("seen", 2))  # the bucket is there, and the model is not
    pod.write_secret(store.secret)
    pod.write_manifest(build_python("s3://models/unseen"))
    pod.start()
    assert pod.triton
    assert pod.agent
    pod.until_reason("Empty")
    agent = pod.agent
    until(lambda: "control is closed" in agent.log.read_text(), "the first one is proved closed")
    agent.pause()
    pod.triton.kill()
    pod.start_triton(restricted=False)
    until(lambda: listens(pod.grpc) and listens(pod.http), "the open one answers")
    agent.resume()
    store.put("models", build_double("unseen", 2))
    pod.until_reason("ControlOpen")
    assert "loading: m" not in pod.triton.log.read_text()


def test_an_open_triton_is_never_used(store: Store, pod: Pod) -> None:
    store.put("models", build_double("guard", 2))
    pod.write_secret(store.secret)
    pod.write_manifest(build_python("s3://models/guard"))
    pod.start_agent()
    pod.start_triton(restricted=False)
    report = pod.until_reason("ControlOpen")
    for part in ("model load over gRPC", "repository index over HTTP", "--grpc-restricted-protocol"):
        assert part in report.message
    assert report.state == ModelState.FAILED
    assert not pod.ready
    assert pod.triton
    assert "loading: m" not in pod.triton.log.read_text()
    pod.triton.kill()
    pod.start_triton()
    pod.until_ready()
    pod.triton.kill()
    pod.start_triton(restricted=False)
    pod.until_reason("ControlOpen")
    assert not pod.ready


def test_a_model_that_left_the_manifest_is_unloaded(store: Store, pod: Pod) -> None:
    store.put("models", build_double("stays", 2) | build_double("goes", 3))
    pod.write_secret(store.secret)
    stays = ModelSource(name="stays", format="python", storage_uri="s3://models/stays")
    goes = ModelSource(name="goes", format="python", storage_uri="s3://models/goes")
    pod.write_manifest(stays, goes)
    pod.start()
    pod.until_ready()
    pod.write_manifest(stays)
    until(lambda: not (pod.repository / "goes").exists(), "the folder is gone", pod.agent)
    pod.until_ready()
    assert [model.name for model in pod.report.models] == ["stays"]
    until(lambda: not (pod.downloads / "goes").exists(), "what was fetched is gone too", pod.agent)


def test_sigterm_ends_the_agent_cleanly(store: Store, pod: Pod) -> None:
    store.put("models", build_double("term", 2))
    pod.write_secret(store.secret)
    pod.write_manifest(build_python("s3://models/term"))
    pod.start()
    pod.until_ready()
    assert pod.triton
    assert pod.agent
    assert pod.triton.stop() == 0
    assert pod.agent.stop(5) == 0
    key = pod.root / "control" / "key"
    assert key.stat().st_mode & 0o777 == 0o440


def test_a_pod_serves_the_content_of_its_revision_or_none(store: Store, pod: Pod) -> None:
    """The source is overwritten: a serving pod keeps its content, and a new pod refuses the new content."""
    store.put("models", build_double("pinned", 2))
    pod.write_secret(store.secret)
    source = build_python("s3://models/pinned")
    pod.write_manifest(source)
    pod.start()
    pod.until_ready()
    pod.until_reported()
    digest = pod.model().digest
    store.put("models", build_double("pinned", 3))
    pod.write_manifest(source.model_copy(update={"digest": digest}))
    assert pod.agent
    pod.agent.kill()
    pod.start_agent()
    pod.until_ready()
    assert pod.infer("m", X)["y"] == [3.0, 4.0], "the agent that comes back serves what is laid out"
    assert pod.triton
    assert pod.triton.log.read_text().count('"loading: m:1"') == 1

    for folder in (pod.repository, pod.downloads):  # as in a new pod
        shutil.rmtree(folder / "m")
    pod.agent.kill()
    pod.triton.kill()
    pod.start()
    report = pod.until_reason("ContentChanged")
    assert report.state == ModelState.FAILED
    for words in ("s3://models/pinned has changed", digest, "a new revision"):
        assert words in report.message
    assert not pod.ready
    store.put("models", build_double("pinned", 2))
    pod.until_ready()
    assert pod.infer("m", X)["y"] == [3.0, 4.0]


def test_a_pod_that_serves_other_content_than_its_revision_leaves(store: Store, pod: Pod) -> None:
    store.put("models", build_double("other", 2))
    pod.write_secret(store.secret)
    source = build_python("s3://models/other")
    pod.write_manifest(source)
    pod.start()
    pod.until_ready()
    pod.write_manifest(source.model_copy(update={"digest": "sha256:" + "0" * 64}))
    until(lambda: not pod.ready, "the pod is not ready", pod.agent)
    assert pod.until_reason("ContentChanged").state == ModelState.FAILED
