"""From the files as the user keeps them to the folders that Triton reads.

Planning is pure: names in, names out, or a Failure with what was found and what was expected.
Laying builds the whole folder beside the repository and renames it in: Triton never sees half of it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from conch_agent.model_files import NOTHING_NAMED, ModelNames, select_model
from conch_agent.model_repository import describe_triton_layout, is_version, refuse_several_models
from conch_agent.reasons import Failure, Reason
from conch_contract.formats import FORMATS, Format, FormatName

CONFIG: Final = PurePosixPath("config.pbtxt")
MARKER: Final = ".conch.json"  # inside the laid folder: it arrives with it, or not at all
_NUMBER: Final = re.compile(r"\s*[+-]?[1-9]")  # as C's stoll reads it
_DOCUMENTS: Final = frozenset({".md", ".rst", ".adoc", ".pdf", ".html"})
_DOCUMENTATION: Final = frozenset(
    {"readme", "license", "licence", "notice", "copying", "authors", "changelog", "citation", "version"}
)


@dataclass(frozen=True)
class Plan:
    """`files` maps paths in Triton's model folder to paths in the source; config.pbtxt is not among them."""

    files: Mapping[PurePosixPath, PurePosixPath]
    versions: tuple[int, ...]
    config: PurePosixPath | None


def find_config(format_name: FormatName, paths: Iterable[PurePosixPath]) -> PurePosixPath | None:
    """Return where config.pbtxt is among the source's files."""
    found = tuple(sorted(paths))
    config = _root(FORMATS[format_name], found) / CONFIG
    return config if config in found else None


def plan(format_name: FormatName, paths: Iterable[PurePosixPath], uri: str, names: ModelNames = NOTHING_NAMED) -> Plan:
    """Return how the files become a model folder.

    Without version folders the files are version 1. What config.pbtxt finds beside the version folders (label files,
    environments, warmup/, initial_state/) lies there, whether the user keeps version folders or not.

    Args:
        format_name: The format.
        paths: The source's files.
        uri: The storageUri, with which messages begin.
        names: The files that the model's config.pbtxt names.

    Raises:
        Failure: NotAModel; SeveralModels for a model repository of Triton.
    """
    row = FORMATS[format_name]
    found = tuple(sorted(path for path in paths if path.name != MARKER))
    root = _root(row, found)
    inside = tuple(path.relative_to(root) for path in found if path.is_relative_to(root))
    config = root / CONFIG if CONFIG in inside else None
    model = tuple(path for path in inside if path != CONFIG)
    versions = tuple(sorted({int(path.parts[0]) for path in model if is_version(path)}))
    if row.is_triton_folder:
        if not versions and config is None:
            raise refuse_several_models(found, uri) or _not_a_model(row, found, uri)
        return Plan({path: root / path for path in model}, versions, config)
    files: dict[PurePosixPath, PurePosixPath] = {}
    for version in versions or (1,):
        folder = PurePosixPath(str(version)) if versions else PurePosixPath()
        own = tuple(path.relative_to(folder) for path in model if path.is_relative_to(folder))
        laid = select_model(row, own, names)
        if isinstance(laid, str):
            raise _not_a_model(row, found, uri, f"{f'version {version}' if versions else 'it'} {laid}")
        for target, source in laid.items():
            files[PurePosixPath(str(version)) / target] = folder / source
    files |= {path: path for path in model if _is_beside(path, versions=bool(versions), names=names)}
    if versions:
        _check_folders(tuple(files), uri)
    return Plan(files, versions or (1,), config)


def lay(plan: Plan, source: Path, beside: Path, target: Path, *, config: str, marker: object) -> None:
    """Build the model folder at `beside` with hard links and rename it to `target`, in place of what is there."""
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    for name, origin in plan.files.items():
        place = beside / name
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(source / origin, place)
    for version in plan.versions:
        (beside / str(version)).mkdir(exist_ok=True)
    (beside / CONFIG).write_text(config)
    (beside / MARKER).write_text(json.dumps(marker))
    remove(target, beside.with_name(f"{beside.name}.old"))
    beside.rename(target)


def remove(folder: Path, aside: Path) -> None:
    """Take a model folder out of the repository in one step, then delete it."""
    shutil.rmtree(aside, ignore_errors=True)
    if folder.exists():
        folder.rename(aside)
        shutil.rmtree(aside)


def _is_beside(path: PurePosixPath, *, versions: bool, names: ModelNames) -> bool:
    """Return True for a file that lies beside the version folders: all but documentation, or what is named."""
    if versions:
        return not is_version(path) and not (len(path.parts) == 1 and _is_documentation(path))
    return any(path.is_relative_to(beside) for beside in names.beside)


def _check_folders(laid: tuple[PurePosixPath, ...], uri: str) -> None:
    """Refuse folders that Triton takes for versions: it reads the number that a folder's name begins with."""
    for path in laid:
        if len(path.parts) > 1 and not is_version(path) and _NUMBER.match(path.parts[0]):
            message = (
                f"{uri} has the folder {path.parts[0]!r} beside its version folders. Triton takes a folder whose name "
                "begins with a number for a version. Rename it."
            )
            raise Failure(Reason.NOT_A_MODEL, message)


def _root(row: Format, found: tuple[PurePosixPath, ...]) -> PurePosixPath:
    return _only_folder(found) if row.is_triton_folder else PurePosixPath()


def _only_folder(found: tuple[PurePosixPath, ...]) -> PurePosixPath:
    """Return the one folder that holds everything but documentation and is no version, or the root."""
    tops = {path.parts[0] for path in found if len(path.parts) > 1}
    loose = [path for path in found if len(path.parts) == 1]
    nested = len(tops) == 1 and all(map(_is_documentation, loose)) and not any(map(is_version, found))
    return PurePosixPath(tops.pop()) if nested else PurePosixPath()


def _is_documentation(path: PurePosixPath) -> bool:
    """Return True for a file that people read and no backend does.

    >>> [name for name in ("README", "LICENSE.txt", "card.md", "labels.txt") if _is_documentation(PurePosixPath(name))]
    ['README', 'LICENSE.txt', 'card.md']
    """
    return path.suffix.lower() in _DOCUMENTS or path.stem.lower() in _DOCUMENTATION


def _not_a_model(row: Format, found: tuple[PurePosixPath, ...], uri: str, problem: str = "") -> Failure:
    names = ", ".join(str(path) for path in found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
    because = f" ({problem})" if problem else ""
    remedy = "" if row.is_triton_folder else describe_triton_layout(found, uri)
    message = f"{uri} is not a model of format {row.name}{because}: it holds {names}; expected {row.expected}.{remedy}"
    return Failure(Reason.NOT_A_MODEL, message)
