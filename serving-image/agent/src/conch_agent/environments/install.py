"""The installation of packages by pip, for the interpreter of Triton's Python backend.

pip fetches the wheels of an index first, so that their sizes are known before one is unpacked. It runs no code of a
package: it installs wheels alone, and none that a requirement does not name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from conch_agent.environments.index import Index
from conch_agent.environments.interpreter import Interpreter
from conch_agent.environments.pip import TEMPORARY, PipResult, run_pip
from conch_agent.environments.requirements import WHEELS, Requirements
from conch_agent.environments.size_limits import SizeLimits, measure_folder
from conch_agent.reasons import Failure, Reason
from conch_agent.threads import run_in_thread

_INSTALLED: Final = "installed"
_LISTED: Final = "requirements.txt"


@dataclass(frozen=True)
class Installation:
    """An installation of packages.

    Attributes:
        requirements: The packages.
        interpreter: The interpreter that imports them.
        folder: The folder of the installation, which is empty before.
        place: As in `read_requirements`.
        index: The index that has the wheels.
        limits: The bytes that it may take.
    """

    requirements: Requirements
    interpreter: Interpreter
    folder: Path
    place: str
    index: Index
    limits: SizeLimits

    async def run(self) -> Path:
        """Install the packages; return their folder.

        Raises:
            Failure: EnvironmentFailed, with pip's words; TooLarge, DiskFull; Unreachable: a proxy of the container's
                environment is invalid.
            CacheUnusableError: The cache has no space for them.
            OSError: The disk is full, or the folder cannot be written.
        """
        wheels, installed = self.folder / WHEELS, self.folder / _INSTALLED
        await run_in_thread(self._prepare)
        common = [f"--requirement={_LISTED}", *(["--require-hashes"] if self.requirements.has_hashes else [])]
        if not self.requirements.wheels:
            variables = await run_in_thread(self.index.write_variables, self.folder)
            await self._run_pip(["download", f"--dest={wheels}", *common], variables, self._check_download)
        beside = 0 if self.requirements.wheels else await run_in_thread(measure_folder, wheels)
        await run_in_thread(self.limits.check_packages, self.requirements.names, wheels, beside)
        local = ["--no-compile", "--no-index", f"--find-links={wheels}"]
        await self._run_pip(["install", *local, f"--target={installed}", *common], {})
        return installed

    def _prepare(self) -> None:
        for name in (WHEELS, TEMPORARY, _INSTALLED):
            (self.folder / name).mkdir()
        (self.folder / _LISTED).write_text("\n".join(self.requirements.lines) + "\n")
        for wheel in self.requirements.wheels:
            (self.folder / WHEELS / wheel.name).symlink_to(wheel.resolve())

    def _check_download(self) -> None:
        self.limits.check_download(self.folder / TEMPORARY)

    async def _run_pip(
        self, arguments: Sequence[str], variables: Mapping[str, str], check: Callable[[], None] | None = None
    ) -> None:
        result = await run_pip(self.interpreter, arguments, self.folder, variables, check)
        if result.status:
            raise self._build_failure(result)

    def _build_failure(self, result: PipResult) -> Failure:
        where = f"the folder {WHEELS}/" if self.requirements.wheels else self.index.place
        message = (
            f"{self.place}: pip cannot install the packages from {where} (exit status {result.status}):"
            f" {result.problem} Expected is a wheel of each version for this image's Python; sources are not built. The"
            " agent tries again."
        )
        return Failure(Reason.ENVIRONMENT_FAILED, message)
