"""Pods that send each other what they fetch, where one of them has wrong bytes, or is requested for what is private."""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from pyrage import encrypt, x25519

from conch_agent.peers.piece import MAC_HEADER, NONCE_HEADER, Piece, derive_key, sign_content, sign_request
from conch_agent.record import read_record
from conch_agent.settings import Settings
from conch_agent.sources import build_key, read_values
from conch_contract import Decryption, ModelSource, Verification
from tests.serving.pod import Pod
from tests.serving.processes import until
from tests.serving.store import Store
from tests.serving.test_lifecycle import SIZE, build_double, build_python
from tests.serving.test_peers import (
    MakePods,
    make_pods,
    put_large,
    read_weights,
    run_liar,
    start_agents,
    sum_bytes,
    until_laid_out,
)

__all__ = ["make_pods"]


def request_first_piece(pod: Pod, source: ModelSource, mark: str = "", seconds: float = 60) -> int:
    """Request the first piece of the weights, as a pod with the same Secret; return the status of the answer."""
    settings = Settings(root=pod.root)
    records = [read_record(file) for file in (pod.downloads / "m" / "parts").glob("*.json")]
    [tag] = [record.tag for record in records if record and record.size == SIZE]
    piece = Piece(build_key(source.storage_uri, settings), "weights.bin", mark or tag, SIZE, 0)
    key, nonce = derive_key(read_values(source.storage_uri, settings)), secrets.token_hex(16)
    mac = sign_request(key, piece, f"127.0.0.1:{pod.port}", nonce)
    request = urllib.request.Request(
        f"http://127.0.0.1:{pod.port}{piece.target}", headers={MAC_HEADER: mac, NONCE_HEADER: nonce}
    )
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_pod_without_peers_sends_nothing(store: Store, make_pods: MakePods) -> None:
    put_large(store, "alone")
    source = build_python("s3://models/alone")
    [pod] = make_pods(1)
    pod.write_manifest(source)
    pod.start_agent()
    until_laid_out([pod])
    assert request_first_piece(pod, source) == 404


def test_files_of_a_claim_go_to_no_pod(make_pods: MakePods) -> None:
    """A claim has no Secret, so that the key of its pods is known to all."""
    [pod] = make_pods(1)
    claim = pod.root / "pvc" / "claim"
    for name, content in {**build_double("m", 2), "m/weights.bin": os.urandom(SIZE)}.items():
        (claim / name).parent.mkdir(parents=True, exist_ok=True)
        (claim / name).write_bytes(content)
    source = build_python("pvc://claim/m")
    start_agents([pod], source)
    until_laid_out([pod])
    assert request_first_piece(pod, source) == 404


def test_a_request_that_is_too_long_is_not_read(make_pods: MakePods) -> None:
    [pod] = make_pods(1)
    start_agents([pod], build_python("s3://models/none"))
    with pytest.raises(OSError, match=r"closed|reset"):
        urllib.request.urlopen(f"http://127.0.0.1:{pod.port}/pieces/{'x' * 20_000}", timeout=60)
    until(lambda: pod.report.models, "the agent goes on", pod.agent)


def damage(file: Path) -> None:
    """Change a byte of a file, as a bad disk does."""
    with file.open("r+b") as stream:
        stream.seek(SIZE // 2)
        byte = stream.read(1)[0]
        stream.seek(SIZE // 2)
        stream.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("is_pinned", [False, True])
def test_a_pod_with_a_damaged_file_does_not_keep_others_from_serving(
    store: Store, make_pods: MakePods, *, is_pinned: bool
) -> None:
    prefix = f"damaged-{is_pinned}"
    weights = put_large(store, prefix)
    source = build_python(f"s3://models/{prefix}")
    [first], [second] = make_pods(1), make_pods(1)
    start_agents([first], source)
    until_laid_out([first])
    digest = first.model().digest
    damage(first.downloads / "m" / "files" / "weights.bin")
    update = {"digest": digest} if is_pinned else {"verify": Verification(digest=digest)}
    start_agents([second], source.model_copy(update=update), [first.port])
    until_laid_out([second])
    assert sum_bytes([second], "peer") > 0, "the damaged bytes have arrived"
    assert hashlib.sha256(read_weights(second)).digest() == hashlib.sha256(weights).digest()


def send_zeros(source: ModelSource, pod: Pod) -> Callable[[socket.socket], None]:
    """Answer requests as a pod with the same Secret whose files have zeros in the place of all bytes."""
    key = derive_key(read_values(source.storage_uri, Settings(root=pod.root)))

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            line, *headers = connection.recv(65536).decode().split("\r\n")
            nonce = dict(header.partition(": ")[::2] for header in headers)[NONCE_HEADER]
            piece = Piece.parse(line.split(" ")[1])
            assert piece
            content = bytes(piece.end - piece.start)
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + content + sign_content(key, nonce, content))

    return answer


def test_an_encrypted_model_is_decrypted_though_a_pod_has_sent_other_bytes(store: Store, make_pods: MakePods) -> None:
    identity, weights = x25519.Identity.generate(), os.urandom(SIZE)
    files = {**build_double("wrong", 2), "wrong/weights.bin": weights}
    store.put("models", {f"{name}.age": encrypt(content, [identity.to_public()]) for name, content in files.items()})
    source = build_python("s3://models/wrong").model_copy(update={"decrypt": Decryption(secret="identity")})
    [pod] = make_pods(1)
    pod.mount_identities("identity", {"key.txt": str(identity)})
    with run_liar(send_zeros(source, pod)) as port:
        start_agents([pod], source, [port])
        until_laid_out([pod])
    assert sum_bytes([pod], "peer") > 0
    assert hashlib.sha256(read_weights(pod)).digest() == hashlib.sha256(weights).digest()


def test_a_pod_that_will_not_fetch_delays_no_other(store: Store, make_pods: MakePods) -> None:
    """It has another content of the same path. An agent that has started again does not know whether it will fetch."""
    put_large(store, "delay")
    source = build_python("s3://models/delay")
    [pod] = make_pods(1)
    start_agents([pod], source)
    until_laid_out([pod])
    pod.stop()
    start_agents([pod], source)
    until_laid_out([pod])
    deadline = time.monotonic() + 60
    for index in range(40):
        assert request_first_piece(pod, source, f'"{index}"', deadline - time.monotonic()) == 504
