"""The program of a revision Job: its options, its report and its exit status.

The report is the container's termination message, so the program needs no API credentials. `conch_contract` has the
table of the Jobs; each has its measurement in a subclass of `Job`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Generic, Self, TypeVar

from pydantic import ValidationError

from conch_agent.expansion import select_source
from conch_agent.reasons import Failure, Reason
from conch_agent.settings import POD_ROOT, Settings
from conch_contract import JobReport, ModelManifest
from conch_contract.revision_jobs import RevisionJob

Report = TypeVar("Report", bound=JobReport)

_EXIT_STATUS: Final = (
    "The report is the container's termination message, as JSON. Exit status: 0 success, 1 a failure that no retry"
    " cures, 2 a failure that a retry may cure, such as no answer."
)
_LONGEST: Final = 4000  # bytes; the kubelet keeps 4096 of a termination message


@dataclass(frozen=True, kw_only=True)
class Job(ABC, Generic[Report]):
    """A run of a revision Job's program. A subclass has a field for each of its own options.

    Attributes:
        row: The row of the Job in the contract's table.
        settings: Paths of the container.
        scratch: Folder of fetched files.
        message: File of the termination message.
    """

    row: ClassVar[RevisionJob[Any]]
    settings: Settings
    scratch: Path
    message: Path

    @classmethod
    @abstractmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Add the options of this Job, with the names of its fields.

        Args:
            parser: The parser, to which `parse` adds the options of all Jobs.
        """

    @abstractmethod
    async def measure(self, manifest: ModelManifest) -> Report:
        """Return the report of the revision, also of a failure.

        Args:
            manifest: The models of the revision.

        Raises:
            Failure: There is no result.
        """

    @staticmethod
    @abstractmethod
    def format_numbers(report: Report) -> str:
        """Return the measurements of a report for the Job's log; empty where there are none.

        Args:
            report: The report.
        """

    @classmethod
    def main(cls) -> None:
        """Run the program."""
        job = cls.parse(sys.argv[1:])
        report = asyncio.run(job.run())
        write_report(report, job.message)
        sys.stdout.write(job.format_report(report) + "\n")
        sys.exit(report.exit_status)

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Self:
        """Return the run of a command line.

        Args:
            arguments: The command line without the program.
        """
        options = vars(cls.build_parser().parse_args(arguments))
        return cls(settings=Settings(root=options.pop("root")), **options)

    @classmethod
    def build_parser(cls) -> argparse.ArgumentParser:
        """Return the parser of the command line."""
        description = sys.modules[cls.__module__].__doc__
        parser = argparse.ArgumentParser(prog=cls.row.program, description=description, epilog=_EXIT_STATUS)
        cls.add_options(parser)
        parser.add_argument("--root", type=Path, default=POD_ROOT, help="parent of manifest, warmup, storage, ...")
        scratch = Path("/tmp") / cls.row.program  # noqa: S108  an emptyDir
        parser.add_argument("--scratch", type=Path, default=scratch, help="folder of fetched files")
        parser.add_argument("--message", type=Path, default=Path("/dev/termination-log"), help="file of the report")
        return parser

    async def run(self) -> Report:
        """Return the report, also of a failure and of a defect of the program."""
        try:
            manifest = self._read_manifest()
            # Of a repository only the entry gets requests, and only its folder is read.
            models = (select_source(each, each.name) if each.is_repository else each for each in manifest.models)
            return await self.measure(manifest.model_copy(update={"models": tuple(models)}))
        except Failure as failure:
            return self.fail(failure.reason, failure.message)
        except Exception as error:  # noqa: BLE001  the termination message has defects of the program, too
            return self.fail(Reason.INTERNAL, f"{type(error).__name__}: {error}")

    def _read_manifest(self) -> ModelManifest:
        file = self.settings.find_manifest()
        try:
            return ModelManifest.model_validate_json(file.read_bytes())
        except (OSError, ValidationError) as error:
            raise Failure(Reason.INVALID_MANIFEST, f"{file} cannot be read: {error}") from error

    def fail(self, reason: str, message: str) -> Report:
        """Return the report of a failure.

        Args:
            reason: Its reason.
            message: The sentence to the reason.
        """
        report: Report = self.row.report(reason=reason, message=message)
        return report

    def format_report(self, report: Report) -> str:
        """Return a report as a line of the Job's log.

        Args:
            report: The report.
        """
        message = f"{report.message} " if report.message else ""
        return f"{report.reason}: {message}{self.format_numbers(report)}".strip()


def write_report(report: JobReport, file: Path) -> None:
    """Write the termination message. A message that is too long for the kubelet is cut.

    Args:
        report: The report.
        file: The file of the termination message.
    """
    text, message = report.to_json(), report.message
    while message and (excess := len(text.encode()) - _LONGEST) > 0:
        message = message[: -max(1, excess // 6)]  # a character is at most six bytes of JSON
        text = report.model_copy(update={"message": message + "…"}).to_json()
    file.write_text(text)
