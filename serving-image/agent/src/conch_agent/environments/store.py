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
from conch_agent.environments.install import Installation
from conch_agent.environments.interpreter import Interpreter, find_interpreter
from conch_agent.environments.parameter import FOLDER
from conch_agent.environments.requirements import Requirements
from conch_agent.environments.size_limits import SizeLimits
from conch_agent.fetch import Fetch, translate_disk_errors
from conch_agent.folders import delete_tree
from conch_agent.sources.base import Listing
from conch_agent.threads import run_in_thread

_WORK: Final = "packages"
ENVIRONMENT_FOLDERS: Final = (FOLDER, _WORK)  # in the model's download folder
_MARKER: Final = ".key"  # a file with the key of the environment
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
        max_bytes: Size of the largest model that is accepted; 0: there is no maximum.
    """

    folder: Path
    cache: Cache | None
    place: str
    index: Index
    max_bytes: int = 0

    @property
    def environment(self) -> Path:
        """The folder of the environment, as Triton takes it."""
        return self.folder / FOLDER

    async def ensure(self, requirements: Requirements) -> Path:
        """Return the folder of the environment, after its packages are installed. A failure leaves no part of it.

        Args:
            requirements: The packages.

        Raises:
            Failure: EnvironmentFailed: they cannot be installed; TooLarge; DiskFull.
            CacheUnusableError: The cache cannot take them.
        """
        interpreter = await run_in_thread(find_interpreter)
        key = await run_in_thread(compute_key, requirements, interpreter, self.index.url)
        if not await run_in_thread(self._has, key):
            await run_in_thread(delete_tree, self.environment)
            try:
                with translate_disk_errors(self.place, self.cache):
                    packages = await self._install(requirements, interpreter, key)
                    await run_in_thread(self._assemble, packages, interpreter, key)
            finally:
                await run_in_thread(delete_tree, self._work)
        return self.environment

    @property
    def _work(self) -> Path:
        """The folder of an environment that is not complete."""
        return self.folder / _WORK

    async def _install(self, requirements: Requirements, interpreter: Interpreter, key: str) -> Path:
        """Install the packages, or link them where the cache has them; return their folder."""
        limits = SizeLimits(self.place, self.folder, self.max_bytes, self.cache)
        installation = Installation(requirements, interpreter, self._work, self.place, self.index, limits)
        if self.cache:
            return await self._find_or_install(installation, self.cache, key)
        await run_in_thread(_empty, self._work)
        return await installation.run()

    async def _find_or_install(self, installation: Installation, cache: Cache, key: str) -> Path:
        """Link what this or another pod has installed into the cache."""
        async with cache.hold_archives(key):
            await run_in_thread(_empty, self._work)
            if not (items := await run_in_thread(cache.find_archives, key)):
                number = await run_in_thread(_share, await installation.run(), cache, key)
                items = await run_in_thread(cache.find_archives, key)
                if len(items) != number:
                    raise CacheUnusableError("the packages have a file whose name no model may have")
            fetch = Fetch(CachedSource(self.place, items), self._work, 0, Progress(), cache)
            return (await fetch.run(Listing(items))).files

    def _assemble(self, packages: Path, interpreter: Interpreter, key: str) -> None:
        """Make the environment of its packages, and then have it in its place."""
        _add_packages_of_image(packages, interpreter)
        built = self._work / "built"
        packages.rename(_build(built, interpreter))
        (built / _MARKER).write_text(key)
        built.rename(self.environment)

    def _has(self, key: str) -> bool:
        try:
            return (self.environment / _MARKER).read_text() == key
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
    programs, packages = folder / "bin", folder / "lib" / f"python{interpreter.version}" / "site-packages"
    programs.mkdir(parents=True)
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
