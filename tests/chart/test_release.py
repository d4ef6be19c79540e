"""`make release` into a real registry on this machine: each image is there under its digest."""

import hashlib
import json
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
import yaml

from tests.cluster import binaries
from tests.cluster.paths import REPOSITORY

VERSION = "9.9.9"
ACCEPT = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command: list[str | Path] = [
        binaries.program("crane"),
        "registry",
        "serve",
        "--address",
        address,
        "--disk",
        tmp_path / "blobs",
    ]
    (tmp_path / "blobs").mkdir()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 20
            while True:
                try:
                    urlopen(f"http://{address}/v2/").close()
                    break
                except URLError:
                    assert time.monotonic() < deadline, "crane registry serve does not answer"
                    time.sleep(0.1)
            yield address
        finally:
            server.terminate()


def release(checkout: Path, registry: str) -> str:
    command = [sys.executable, "-m", "tests.release", "--version", VERSION, "--registry", f"{registry}/conch"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout[done.stdout.index("Made in dist/") :]


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_release_pushes_images_whose_digests_are_those_of_the_chart(tmp_path: Path, registry: str) -> None:
    checkout = tmp_path / "checkout"
    subprocess.run(["git", "clone", "--quiet", REPOSITORY, checkout], check=True)
    if not list((checkout / "changelog.d").glob("*.md")):
        (checkout / "changelog.d" / "1.fixed.md").write_text("A fragment.\n")
        author = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
        subprocess.run(["git", *author, "add", "--all"], cwd=checkout, check=True)
        subprocess.run(["git", *author, "commit", "--quiet", "--message", "Fragment"], cwd=checkout, check=True)

    first = release(checkout, registry)
    images = dict(re.findall(rf"^  image  (\S+):{VERSION}  (sha256:[0-9a-f]{{64}})$", first, re.MULTILINE))
    assert {name.rpartition("/")[2] for name in images} == {"operator", "serving", "tools"}
    for name, digest in images.items():
        host, _, path = name.partition("/")
        from_registry = _manifest(host, path, digest)
        assert "sha256:" + hashlib.sha256(from_registry).hexdigest() == digest
        assert from_registry == _manifest(host, path, VERSION)
        assert json.loads(from_registry)["layers"]

    with tarfile.open(checkout / "dist" / f"conch-{VERSION}.tgz") as archive:
        file = archive.extractfile("conch/values.yaml")
        assert file is not None
        values = yaml.safe_load(file.read())
    for key in ("image", "servingImage"):
        assert values[key]["digest"] == images[values[key]["repository"]]
    assert release(checkout, registry) == first, "a second run gives the same digests"
    shutil.rmtree(checkout)


def _manifest(host: str, path: str, reference: str) -> bytes:
    with urlopen(Request(f"http://{host}/v2/{path}/manifests/{reference}", headers={"Accept": ACCEPT})) as answer:
        return bytes(answer.read())
