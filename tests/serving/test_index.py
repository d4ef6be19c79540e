"""Triton's index of a repository that changes while it is read."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conch_agent.triton import Triton
from tests.serving.pod import Pod
from tests.serving.processes import until
from tests.support.ports import listens

READS = 500


@contextmanager
def come_and_go(folder: Path) -> Iterator[None]:
    """Have a folder leave the repository and come back without end."""
    away, is_over = folder.parent.parent / "away", threading.Event()
    folder.mkdir()

    def run() -> None:
        while not is_over.is_set():
            folder.rename(away)
            away.rename(folder)
            time.sleep(0.0002)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


async def test_a_folder_that_leaves_while_triton_lists_the_repository_is_no_failure(pod: Pod) -> None:
    """Triton 2.51 finds its name, then not the folder, and answers INTERNAL: the pod would leave the endpoints."""
    pod.start_agent()
    pod.start_triton()
    until(lambda: listens(pod.grpc), "Triton answers", pod.agent)
    triton = Triton(f"127.0.0.1:{pod.grpc}", (pod.root / "control" / "key").read_text())
    with come_and_go(pod.repository / "other"):
        for _ in range(READS):
            await triton.read_index()
    await triton.close()
