"""A single file behind a URL, from servers that know ranges and from such that do not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conch_contract import ModelSource
from tests.serving.pod import Pod
from tests.serving.processes import Process, until
from tests.support.ports import free_port

# aiohttp's files answer ranges and carry ETags; http.server's answer 200 to everything and have dates only.
_RANGES = """
import sys
from aiohttp import web
app = web.Application()
app.router.add_static("/", sys.argv[2])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]))
"""


@pytest.fixture(params=["ranges", "plain"])
def site(request: pytest.FixtureRequest, tmp_path: Path, magika_onnx: Path) -> Iterator[str]:
    """A folder behind HTTP; returns its root."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "detector.onnx").write_bytes(magika_onnx.read_bytes())
    port = free_port()
    plain = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(folder), str(port)]
    ranges = [sys.executable, "-c", _RANGES, str(port), str(folder)]
    command = plain if request.param == "plain" else ranges
    process = Process(command, tmp_path / "site.log", {"PATH": "/usr/bin:/bin"})
    yield f"http://127.0.0.1:{port}"
    process.kill()


def test_one_file_behind_a_url_is_served(pod: Pod, site: str, magika_onnx: Path) -> None:
    pod.write_manifest(ModelSource(name="m", format="onnx", storage_uri=f"{site}/missing.onnx"))
    pod.start()
    until(lambda: pod.model().reason in {"NotFound", "Unreachable"}, "the file is missing", 15, pod.agent)
    assert f"{site}/missing.onnx" in pod.until_reason("NotFound").message
    pod.write_manifest(ModelSource(name="m", format="onnx", storage_uri=f"{site}/detector.onnx"))
    pod.until_ready()
    assert pod.model().bytes_total == magika_onnx.stat().st_size
