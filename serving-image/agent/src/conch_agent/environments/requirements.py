"""What a requirements.txt may have: every package with its version, so that each pod of a revision has the same."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from conch_agent.reasons import Failure, Reason
from conch_agent.record import read_text

WHEELS: Final = "wheels"  # the folder of wheels beside requirements.txt
_LONGEST: Final = 1024 * 1024  # bytes
_MOST_WHEELS: Final = 1000  # each is an argument of pip
_COMMENT: Final = re.compile(r"(?:^|(?<=\s))#.*$")
_HASH: Final = re.compile(r"\s--hash[= ]\s*(?P<hash>\S+)")
_SHA256: Final = re.compile(r"sha256:[0-9a-f]{64}")
_HASHED: Final = re.compile(rf" --hash={_SHA256.pattern}$")  # at the end, as `_parse` writes them
_SHOWN: Final = 200  # letters of a line in a message


@dataclass(frozen=True)
class Requirements:
    """The packages of an environment.

    Attributes:
        lines: One for each package: its name, version and hashes, as pip reads them.
        wheels: Their files; empty: an index has them.
        has_hashes: True if each package has a hash.
    """

    lines: tuple[str, ...]
    wheels: tuple[Path, ...]
    has_hashes: bool

    @property
    def names(self) -> frozenset[str]:
        """The names of the packages, as wheels are compared with them (PEP 503)."""
        return frozenset(canonicalize_name(Requirement(_HASH.sub("", line)).name) for line in self.lines)


def read_requirements(file: Path, place: str, wheels: Sequence[Path], *, is_signed: bool) -> Requirements:
    """Read the packages of a requirements.txt.

    Args:
        file: The file.
        place: The file's name in messages, such as `s3://models/m: requirements.txt`.
        wheels: The files of the model in the folder WHEELS beside it.
        is_signed: True if the model's files need a signature, which has to cover the packages too.

    Raises:
        Failure: InvalidConfig, with line, text and remedy.
    """
    try:
        text = read_text(file, _LONGEST).removeprefix("\ufeff")  # editors of Windows write this mark of UTF-8
    except (OSError, ValueError) as error:
        raise Failure(Reason.INVALID_CONFIG, f"{place} cannot be read: {error}. Write it as UTF-8.") from error
    lines = tuple(_parse(number, line, place) for number, line in _join_lines(text))
    bare = [line for line in lines if not _HASHED.search(line)]
    if not lines:
        raise Failure(Reason.INVALID_CONFIG, f"{place} has no package. Remove EXECUTION_ENV_PATH, or list packages.")
    if wheels:
        _check_wheels([wheel.relative_to(file.parent).as_posix() for wheel in wheels], place)
    is_partial, is_uncovered = len(bare) not in {0, len(lines)}, is_signed and not wheels
    if bare and (is_partial or is_uncovered):
        why = "others have one" if is_partial else "the model's signature covers no package of an index"
        message = (
            f"{place}: {bare[0]!r} has no hash, and {why}. Write --hash=sha256:... for every package, as"
            f" `uv pip compile --generate-hashes` does, or put the wheels into {WHEELS}/ and write no hash."
        )
        raise Failure(Reason.INVALID_CONFIG, message)
    return Requirements(lines, tuple(wheels), has_hashes=not bare)


def _check_wheels(paths: Sequence[str], place: str) -> None:
    """Refuse other files: pip follows links in those that it takes for pages, and finds none in a deeper folder."""
    if len(paths) > _MOST_WHEELS:
        message = f"{place}: {WHEELS}/ has {len(paths)} files, of which up to {_MOST_WHEELS} can be read."
        raise Failure(Reason.INVALID_CONFIG, f"{message} Remove those that requirements.txt does not list.")
    for path in paths:
        try:
            parse_wheel_filename(path.removeprefix(f"{WHEELS}/"))
        except InvalidWheelFilename as error:
            message = f"{place}: {path[:_SHOWN]!r} is no wheel: {error}. Remove it, or write a wheel as pip names it."
            raise Failure(Reason.INVALID_CONFIG, message) from None


def _join_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line that has text, with the number of its first one: a backslash continues one that is no comment."""
    first, joined = 0, ""
    for number, line in enumerate(text.splitlines(), start=1):
        first, joined = first or number, joined + line
        if joined.endswith("\\") and not line.lstrip().startswith("#"):
            joined = joined[:-1] + " "
            continue
        if stripped := _COMMENT.sub("", joined).strip():
            yield first, stripped
        first, joined = 0, ""
    if stripped := _COMMENT.sub("", joined).strip():
        yield first, stripped


def _parse(number: int, line: str, place: str) -> str:
    """Return a line as pip reads it, with what is accepted alone."""
    shown = f"{place} line {number}: {line[:_SHOWN]!r}"
    if line.startswith("-"):
        message = (
            f"{shown} is an option. List packages alone; the index is PIP_INDEX_URL of the storage Secret, and wheels"
            f" may lie in {WHEELS}/."
        )
        raise Failure(Reason.INVALID_CONFIG, message)
    if "$" in line:
        raise Failure(Reason.INVALID_CONFIG, f"{shown} has a variable, which pip would replace. Write name==version.")
    hashes = [match["hash"] for match in _HASH.finditer(line)]
    try:
        requirement = Requirement(_HASH.sub("", line))
    except (InvalidRequirement, RecursionError) as error:  # of nested parentheses in a marker
        problem = str(error).splitlines()[0]
        raise Failure(Reason.INVALID_CONFIG, f"{shown} is no requirement: {problem}. Write name==version.") from None
    if requirement.url:
        message = f"{shown} has a URL. Write name==version, and put the wheel into {WHEELS}/ beside requirements.txt."
        raise Failure(Reason.INVALID_CONFIG, message)
    versions = [each for each in requirement.specifier if each.operator in {"==", "==="} and "*" not in each.version]
    if len(versions) != 1 or len(requirement.specifier) != 1:
        message = (
            f"{shown} is not one version. A pod that starts later would get another one: write name==version for every"
            " package and for those that it needs, as `pip freeze` and `uv pip compile` do."
        )
        raise Failure(Reason.INVALID_CONFIG, message)
    for text in hashes:
        if not _SHA256.fullmatch(text):
            raise Failure(Reason.INVALID_CONFIG, f"{shown}: expected --hash=sha256:<64 hexadecimal digits>.")
    return " ".join([str(requirement), *(f"--hash={text}" for text in hashes)])
