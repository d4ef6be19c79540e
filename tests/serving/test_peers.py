"""Pods that send each other what they fetch: a store is read once for all of them."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from conch_agent.peers.piece import Piece
from conch_agent.record import read_record
from conch_agent.settings import Settings
from conch_agent.sources import build_key
from conch_contract import ModelSource, ModelState
from conch_contract.report import Origin
from tests.serving.pod import Pod
from tests.serving.processes import until
from tests.serving.store import Store
from tests.serving.test_formats import X
from tests.serving.test_lifecycle import SIZE, build_double, build_python
from tests.support.relay import Relay

MakePods = Callable[[int], list[Pod]]


@pytest.fixture
def make_pods(store: Store, line: Relay, tmp_path: Path) -> Iterator[MakePods]:
    """Make pods that fetch over the line."""
    pods: list[Pod] = []

    def make(count: int) -> list[Pod]:
        made = [Pod(tmp_path / f"pod-{len(pods) + index}") for index in range(count)]
        pods.extend(made)
        for pod in made:
            pod.write_secret({**store.secret, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{line.port}"})
        return made

    yield make
    for pod in pods:
        pod.stop()


def start_agents(pods: Sequence[Pod], source: ModelSource, others: Sequence[int] = ()) -> None:
    """Start agents that know each other, and other ports; all are live before one has its manifest."""
    ports = [*(pod.port for pod in pods), *others]
    for pod in pods:
        pod.start_agent(*(f"--peer=127.0.0.1:{port}" for port in ports))
    for pod in pods:
        pod.write_manifest(source)


def until_laid_out(pods: Sequence[Pod]) -> None:
    for pod in pods:
        until(lambda pod=pod: pod.model().state == ModelState.LOADING, "it is laid out", pod.agent)  # type: ignore[misc]


def sum_bytes(pods: Sequence[Pod], name: str) -> float:
    return sum(pod.read_agent_metrics()[f'conch_model_{name}_bytes_total{{model="m"}}'] for pod in pods)


def put_large(store: Store, prefix: str) -> bytes:
    """Put a model with a large file; return the content of that file."""
    weights = os.urandom(SIZE)
    store.put("models", {**build_double(prefix, 2), f"{prefix}/weights.bin": weights})
    return weights


def read_weights(pod: Pod) -> bytes:
    return (pod.repository / "m" / "1" / "weights.bin").read_bytes()


def test_eight_pods_read_a_large_file_once(store: Store, make_pods: MakePods, line: Relay) -> None:
    put_large(store, "peers")
    pods = make_pods(8)
    start_agents(pods, build_python("s3://models/peers"))
    until_laid_out(pods)
    assert line.passed < SIZE * 1.5, "pods that do not see each other yet read a piece twice"
    assert SIZE <= sum_bytes(pods, "downloaded") < SIZE * 1.5
    assert SIZE * 6.5 < sum_bytes(pods, "peer") < SIZE * 8
    assert not list(pods[0].downloads.rglob("pieces")), "what is kept for others is deleted after the fetch"
    pods[0].start_triton()
    pods[0].until_ready()
    assert pods[0].infer("m", X)["y"] == [3.0, 4.0]
    assert pods[0].model().origin == Origin.STORAGE


def test_a_pod_that_starts_later_reads_only_small_files_from_the_store(
    store: Store, make_pods: MakePods, line: Relay
) -> None:
    put_large(store, "later")
    source = build_python("s3://models/later")
    [first], [second] = make_pods(1), make_pods(1)
    start_agents([first], source)
    until_laid_out([first])
    first.stop()
    start_agents([first], source)  # an agent that has started again sends what it has
    until_laid_out([first])
    line.passed = 0
    start_agents([second], source, [first.port])
    until_laid_out([second])
    assert line.passed < SIZE / 10
    assert sum_bytes([second], "peer") == SIZE


def test_pods_that_start_beside_one_that_is_ready_read_only_small_files(
    store: Store, make_pods: MakePods, line: Relay
) -> None:
    """A service that grows from one pod to eight: each of the new pods finds the one that has the pieces."""
    put_large(store, "grows")
    source = build_python("s3://models/grows")
    pods = make_pods(8)
    start_agents(pods[:1], source, [pod.port for pod in pods[1:]])
    until_laid_out(pods[:1])
    line.passed = 0
    start_agents(pods[1:], source, [pods[0].port])
    until_laid_out(pods)
    assert line.passed < SIZE / 10
    assert sum_bytes(pods[1:], "peer") >= SIZE * 7


def test_pods_that_start_while_one_fetches_wait_for_what_it_reads(
    store: Store, make_pods: MakePods, line: Relay
) -> None:
    put_large(store, "joins")
    source = build_python("s3://models/joins")
    pods = make_pods(8)
    line.rate = SIZE // 8  # each second
    start_agents(pods[:1], source, [pod.port for pod in pods[1:]])
    until(lambda: pods[0].model().bytes_fetched, "the first pod fetches", pods[0].agent)
    start_agents(pods[1:], source, [pods[0].port])
    until_laid_out(pods)
    assert line.passed < SIZE * 1.2, "a piece that a pod reads is read again"


def test_pods_of_other_content_send_nothing_of_it(store: Store, make_pods: MakePods) -> None:
    """The file has the same path and size, and other bytes."""
    put_large(store, "old")
    weights = put_large(store, "new")
    olds, news = make_pods(2), make_pods(1)
    start_agents(olds, build_python("s3://models/old"))
    until_laid_out(olds)
    start_agents(news, build_python("s3://models/new"), [pod.port for pod in olds])
    until_laid_out(news)
    assert read_weights(news[0]) == weights
    assert sum_bytes(news, "peer") == 0


def test_pods_without_the_secret_get_nothing(store: Store, make_pods: MakePods) -> None:
    put_large(store, "secret")
    source = build_python("s3://models/secret")
    [owner], [other] = make_pods(1), make_pods(1)
    other.write_secret({"unused": "1"})
    start_agents([owner], source)
    until_laid_out([owner])
    record = read_record(next((owner.downloads / "m" / "parts").glob("*.json")))
    assert record
    piece = Piece(build_key(source.storage_uri, Settings(root=owner.root)), "weights.bin", record.tag, SIZE, 0)
    for headers in ({}, {"conch-mac": "0" * 64, "conch-nonce": "1"}, {"conch-mac": "\xe9"}):
        request = urllib.request.Request(f"http://127.0.0.1:{owner.port}{piece.target}", headers=headers)
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(request, timeout=20)  # noqa: S310
    start_agents([other], source, [owner.port])
    until_laid_out([other])
    assert sum_bytes([other], "peer") == 0


@pytest.mark.parametrize(
    "target",
    ["/pieces/", "/pieces/x", "/pieces/x?path=a", "/pieces/x?path=..%2Fkey&mark=a&size=9&start=0", "/pieces/%00"],
)
def test_requests_for_no_piece_are_refused(store: Store, make_pods: MakePods, target: str) -> None:
    put_large(store, "refused")
    [pod] = make_pods(1)
    start_agents([pod], build_python("s3://models/refused"))
    with pytest.raises(urllib.error.HTTPError, match=r"40[04]"):
        urllib.request.urlopen(f"http://127.0.0.1:{pod.port}{target}", timeout=20)
    assert pod.agent
    assert pod.agent.running


@contextmanager
def run_liar(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Run a server in the place of a pod; yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _answer(content: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        with connection:
            connection.recv(65536)
            connection.sendall(content)

    return answer


def _stall(connection: socket.socket) -> None:
    with connection:
        connection.settimeout(60)
        while connection.recv(65536):
            pass


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 8388640\r\n\r\n"
LIES = {
    "other bytes": _answer(OK + bytes(8 * 1024 * 1024 + 32)),
    "too few bytes": _answer(OK + bytes(1000)),
    "an endless head": _answer(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 400_000),
    "no HTTP": _answer(b"SSH-2.0-OpenSSH_9.9\r\n\r\n"),
    "an error": _answer(b"HTTP/1.1 500 Internal Server Error\r\n\r\n"),
    "nothing": _answer(b""),
    "a stall": _stall,
}


@pytest.mark.parametrize("lie", LIES)
def test_what_others_send_in_place_of_a_piece_is_not_laid_out(store: Store, make_pods: MakePods, lie: str) -> None:
    prefix = f"lie-{lie.replace(' ', '-')}"
    weights = put_large(store, prefix)
    pods = make_pods(2)
    with run_liar(LIES[lie]) as port:
        start_agents(pods, build_python(f"s3://models/{prefix}"), [port])
        until_laid_out(pods)
    assert [read_weights(pod) == weights for pod in pods] == [True, True]


def test_pods_that_are_killed_hold_no_other(store: Store, make_pods: MakePods, line: Relay) -> None:
    weights = put_large(store, "killed")
    source = build_python("s3://models/killed")
    pods = make_pods(4)
    line.rate = SIZE
    start_agents(pods, source)
    generator = random.Random(7)  # noqa: S311
    for pod in pods[:2]:
        time.sleep(generator.uniform(0, 0.4))  # the moment is what is random
        assert pod.agent
        pod.agent.kill()
    until_laid_out(pods[2:])
    for pod in pods[:2]:
        pod.start_agent(*(f"--peer=127.0.0.1:{each.port}" for each in pods))
    until_laid_out(pods)
    assert all(read_weights(pod) == weights for pod in pods)


def test_pods_serve_content_that_changes_while_they_fetch(store: Store, make_pods: MakePods, line: Relay) -> None:
    put_large(store, "changes")
    pods = make_pods(3)
    line.rate = SIZE // 30  # no pod has all of the old content before there is the new one
    start_agents(pods, build_python("s3://models/changes"))
    until(lambda: all(pod.model().bytes_fetched for pod in pods), "all pods fetch the old content", pods[0].agent)
    weights = put_large(store, "changes")
    line.rate = 0
    until_laid_out(pods)
    assert all(read_weights(pod) == weights for pod in pods)
