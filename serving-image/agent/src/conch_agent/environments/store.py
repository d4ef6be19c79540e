"""Environments on disk: in the model's download folder, and with a cache as blobs that several pods share."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from conch_agent.cache import Cache, CachedSource, CacheUnusableError
from conch_agent.download import Progress
from conch_agent.environments.index import Index
from conch_agent.environments.install import install
from conch_agent.environments.interpreter import Interpreter, find_interpreter
from conch_agent.environments.parameter import FOLDER
from conch_agent.environments.requirements import Requirements
from conch_agent.fetch import Fetch, translate_disk_errors
from conch_agent.folders import delete_tree
from conch_agent.sources.base import Listing
from conch_agent.threads import run_in_thread

_SHARED: Final = "packages"
ENVIRONMENT_FOLDERS: Final = (FOLDER, _SHARED)  # in the model's download folder
_ACTIVATE: Final = """\
# Triton's Python backend runs this with bash, before the process of the model.
export PATH="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd):$PATH"
"""


@dataclass(frozen=True)
class Environments:
    """The environment of one model.

    Attributes:
        folder: The model's download folder; with a cache, on the file system of the cache.
        cache: The cache; None: there is none.
        place: As in `read_requirements`.
        index: The index that has the wheels.
    """

    folder: Path
    cache: Cache | None
    place: str
    index: Index

    @property
    def environment(self) -> Path:
        """The folder of the environment, as Triton takes it."""
        return self.folder / FOLDER

    @property
    def _marker(self) -> Path:
        """The file with the key of the environment, which it has when it is complete."""
        return self.environment / ".key"

    async def ensure(self, requirements: Requirements) -> Path:
        """Return the folder of the environment, after its packages are installed.

        Args:
            requirements: The packages.

        Raises:
            Failure: EnvironmentFailed: they cannot be installed; DiskFull.
            CacheUnusableError: The cache cannot take them.
        """
        interpreter = await run_in_thread(find_interpreter)
        key = await run_in_thread(compute_key, requirements, interpreter, self.index.url)
        if not await run_in_thread(self._has, key):
            with translate_disk_errors(self.place, self.cache):
                packages = await run_in_thread(_build, self.environment, interpreter)
                if self.cache:
                    await self._find_or_install(requirements, interpreter, self.cache, key)
                    await run_in_thread((self._shared / "files").rename, packages)
                    await run_in_thread(delete_tree, self._shared)
                else:
                    await run_in_thread(packages.mkdir)
                    await install(requirements, interpreter, packages, self.place, self.index)
                await run_in_thread(_add_packages_of_image, packages, interpreter)
                await run_in_thread(self._marker.write_text, key)
        return self.environment

    @property
    def _shared(self) -> Path:
        """The folder of packages that become blobs of the cache, or are links to them."""
        return self.folder / _SHARED

    async def _find_or_install(
        self, requirements: Requirements, interpreter: Interpreter, cache: Cache, key: str
    ) -> None:
        """Link what this or another pod has installed into the cache."""
        async with cache.hold_archives(key):
            await run_in_thread(_empty, self._shared)
            if not (items := await run_in_thread(cache.find_archives, key)):
                built = self._shared / "built"
                await run_in_thread(built.mkdir)
                await install(requirements, interpreter, built, self.place, self.index)
                number = await run_in_thread(_share, built, cache, key)
                items = await run_in_thread(cache.find_archives, key)
                if len(items) != number:
                    raise CacheUnusableError("the packages have a file whose name no model may have")
            await Fetch(CachedSource(self.place, items), self._shared, 0, Progress(), cache).run(Listing(items))

    def _has(self, key: str) -> bool:
        try:
            return self._marker.read_text() == key
        except OSError:
            return False


def _share(folder: Path, cache: Cache, key: str) -> int:
    """Make blobs of all files, also of those that are no files of a model: packages may have hidden ones.

    Args:
        folder: The folder of the packages.
        cache: The cache, on the same file system.
        key: Key of the environment.

    Returns:
        The number of the files.
    """
    files = [path for path in folder.rglob("*") if path.is_file()]
    if cache.has_limit:  # the files are on its disk already, and count for its size once they are blobs
        cache.make_space(sum(path.stat().st_size for path in files), 0)
    cache.write_archives(key, {path.relative_to(folder).as_posix(): cache.add(path) for path in files})
    return len(files)


def compute_key(requirements: Requirements, interpreter: Interpreter, index: str = "") -> str:
    """Return the key of an environment: a hash of its packages, of the interpreter, and of what decides on the wheels.

    Without wheels of the model and hashes, that is the index: another one may have other packages of the same names.

    Args:
        requirements: The packages.
        interpreter: The interpreter that imports them.
        index: URL of the index; empty: that of pip.
    """
    digests = sorted((wheel.name, _hash(wheel)) for wheel in requirements.wheels)
    origin = "" if requirements.has_hashes or digests else index
    fields = [requirements.lines, asdict(interpreter), digests, origin]
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _build(folder: Path, interpreter: Interpreter) -> Path:
    """Make an environment without packages; return the folder of its packages, which is not there yet."""
    _empty(folder)
    programs, packages = folder / "bin", folder / "lib" / f"python{interpreter.version}" / "site-packages"
    programs.mkdir()
    packages.parent.mkdir(parents=True)
    (programs / "activate").write_text(_ACTIVATE)
    (programs / "python3").symlink_to(interpreter.base)
    (folder / "pyvenv.cfg").write_text(f"home = {Path(interpreter.base).parent}\nversion = {interpreter.version}\n")
    return packages


def _add_packages_of_image(packages: Path, interpreter: Interpreter) -> None:
    """Have the packages of the image, such as NumPy, which Triton's own module imports, after those of the model."""
    file = packages / "conch-image.pth"
    file.unlink(missing_ok=True)  # of a package, and a link to a blob of the cache
    file.write_text("\n".join(interpreter.packages) + "\n")


def _empty(folder: Path) -> None:
    delete_tree(folder)
    folder.mkdir(parents=True)
