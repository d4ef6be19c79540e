"""The layout of a model's files in Triton's model repository.

The plan is computed from paths only; a Failure has the present and the expected files. The model folder is built
outside the repository and takes the place of that of before in one step, so that Triton never reads an incomplete
folder, and lists one of the two at each moment.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from conch_agent.folders import delete_tree, put_in_place
from conch_agent.model_files import NO_NAMES, ModelNames, select_model
from conch_agent.model_repository import describe_triton_layout, is_version, refuse_several_models
from conch_agent.reasons import Failure, Reason
from conch_contract.formats import FORMATS, PROGRAM_FILES, Format, FormatName

CONFIG: Final = PurePosixPath("config.pbtxt")
MARKER: Final = ".conch.json"  # in the model folder, which is renamed into the repository as a whole
SERVED: Final = "served"  # in the download folder: the files of the content in the repository, under their own paths
_NUMBER: Final = re.compile(r"\s*[+-]?[1-9]")  # as C's stoll reads it
_DOCUMENTS: Final = frozenset({".md", ".rst", ".adoc", ".pdf", ".html"})
_DOCUMENTATION: Final = frozenset(
    {"readme", "license", "licence", "notice", "copying", "authors", "changelog", "citation", "version"}
)


@dataclass(frozen=True)
class Plan:
    """The plan of a model folder.

    Attributes:
        files: Paths in the source by path in Triton's model folder, without config.pbtxt.
        versions: The version folders.
        config: Path of config.pbtxt in the source; None: there is none.
    """

    files: Mapping[PurePosixPath, PurePosixPath]
    versions: tuple[int, ...]
    config: PurePosixPath | None


def find_config(format_name: FormatName, paths: Iterable[PurePosixPath]) -> PurePosixPath | None:
    """Return the path of config.pbtxt among the source's files; None where there is none.

    Args:
        format_name: The format.
        paths: The source's files.
    """
    all_files = tuple(sorted(paths))
    config = _find_root(FORMATS[format_name], all_files) / CONFIG
    return config if config in all_files else None


def plan_layout(
    format_name: FormatName, paths: Iterable[PurePosixPath], uri: str, names: ModelNames = NO_NAMES
) -> Plan:
    """Return the plan of a model folder.

    Without version folders the files are version 1, also those of an ensemble, which has only config.pbtxt. Files that
    config.pbtxt expects beside the version folders (label files, environments, warmup/, initial_state/) are there with
    and without version folders of the user.

    Args:
        format_name: The format.
        paths: The source's files.
        uri: The storageUri, with which messages begin.
        names: The files that the model's config.pbtxt names.

    Raises:
        Failure: NotAModel; SeveralModels for a model repository of Triton.
    """
    row = FORMATS[format_name]
    all_files = tuple(sorted(path for path in paths if path.name != MARKER))
    programs = [str(path) for path in all_files if path.name in PROGRAM_FILES]
    if row.is_data and programs:
        raise _build_not_a_model(row, all_files, uri, f"Triton would run {programs[0]}, and this format is data")
    root = _find_root(row, all_files)
    inside = tuple(path.relative_to(root) for path in all_files if path.is_relative_to(root))
    config = root / CONFIG if CONFIG in inside else None
    model = tuple(path for path in inside if path != CONFIG)
    versions = tuple(sorted({int(path.parts[0]) for path in model if is_version(path)}))
    if row.is_triton_folder:
        if not versions and config is None:
            raise refuse_several_models(all_files, uri) or _build_not_a_model(row, all_files, uri)
        # An ensemble has no files, and an object store no empty folder 1/, which Triton needs.
        return Plan({path: root / path for path in model}, versions or (1,), config)
    files: dict[PurePosixPath, PurePosixPath] = {}
    for version in versions or (1,):
        folder = PurePosixPath(str(version)) if versions else PurePosixPath()
        version_files = tuple(path.relative_to(folder) for path in model if path.is_relative_to(folder))
        selection = select_model(row, version_files, names)
        if isinstance(selection, str):
            raise _build_not_a_model(row, all_files, uri, f"{f'version {version}' if versions else 'it'} {selection}")
        for target, source in selection.items():
            files[PurePosixPath(str(version)) / target] = folder / source
    files |= {path: path for path in model if _is_beside(path, versions=bool(versions), names=names)}
    if versions:
        _check_folders(tuple(files), uri)
    return Plan(files, versions or (1,), config)


def build_folder(
    plan: Plan,
    source: Path,
    staging: Path,
    target: Path,
    trash: Path,
    *,
    config: str,
    marker: object,
    environment: Path | None = None,
) -> None:
    """Build a model folder with hard links, and put it in its place.

    Args:
        plan: The plan of the folder.
        source: The folder of the fetched files.
        staging: The folder in which the model folder is built.
        target: The model folder in the repository. An existing one is replaced.
        trash: The name of an existing one before it is deleted, on the repository's file system.
        config: The text of config.pbtxt.
        marker: The content of MARKER.
        environment: The folder of the model's Python environment; None: it has none.
    """
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    for name, origin in plan.files.items():
        path = staging / name
        path.parent.mkdir(parents=True, exist_ok=True)
        _link_or_copy(source / origin, path)
    for version in plan.versions:
        (staging / str(version)).mkdir(exist_ok=True)
    if environment:
        shutil.copytree(environment, staging / environment.name, symlinks=True, copy_function=_link_or_copy)
    (staging / CONFIG).write_text(config)
    (staging / MARKER).write_text(json.dumps(marker))
    if staging.parent.is_symlink():  # into the cache, which is another file system
        _link_folder(staging, target, trash)
        return
    delete_tree(trash)
    staging.rename(trash)
    put_in_place(trash, target)


def _link_or_copy(file: str | Path, path: str | Path) -> None:
    """Link a file, or copy it if it has as many links as its file system allows."""
    try:
        os.link(file, path)
    except OSError as error:
        if error.errno != errno.EMLINK:
            raise
        shutil.copy(file, path)


def link_served(paths: Iterable[PurePosixPath], source: Path, folder: Path) -> None:
    """Make the folder SERVED with hard links, which a later fetch does not change.

    Args:
        paths: The files that have passed their checks.
        source: The folder of the fetched files.
        folder: The model's download folder.
    """
    served, staging = folder / SERVED, folder / f"{SERVED}.new"
    shutil.rmtree(staging, ignore_errors=True)
    for path in paths:
        (staging / path).parent.mkdir(parents=True, exist_ok=True)
        _link_or_copy(source / path, staging / path)
    shutil.rmtree(served, ignore_errors=True)
    staging.rename(served)


def _link_folder(staging: Path, target: Path, trash: Path) -> None:
    """Make the model folder a symbolic link to a folder on another file system.

    It leads there without the download folder, which Triton does not see. The files in it are hard links all the same:
    libraries refuse links that lead out of a model's folder.
    """
    home, serving = staging.parent.resolve(), target.resolve()
    for other in home.glob("laid-*"):
        if other != serving:
            shutil.rmtree(other, ignore_errors=True)  # of a run that was killed
    folder = home / f"laid-{secrets.token_hex(8)}"
    staging.rename(folder)
    delete_tree(trash)
    trash.symlink_to(folder)
    put_in_place(trash, target)


def _is_beside(path: PurePosixPath, *, versions: bool, names: ModelNames) -> bool:
    """Return True for a file that has its path beside the version folders.

    With version folders these are all files but documentation, else the files that config.pbtxt names.
    """
    if versions:
        return not is_version(path) and not (len(path.parts) == 1 and _is_documentation(path))
    return any(path.is_relative_to(beside) for beside in names.beside)


def _check_folders(paths: tuple[PurePosixPath, ...], uri: str) -> None:
    """Refuse folders that Triton reads as versions because their names begin with a number."""
    for path in paths:
        if len(path.parts) > 1 and not is_version(path) and _NUMBER.match(path.parts[0]):
            message = (
                f"{uri} has the folder {path.parts[0]!r} beside its version folders. Triton takes a folder whose name "
                "begins with a number for a version. Rename it."
            )
            raise Failure(Reason.NOT_A_MODEL, message)


def _find_root(row: Format, all_files: tuple[PurePosixPath, ...]) -> PurePosixPath:
    return _find_only_folder(all_files) if row.is_triton_folder else PurePosixPath()


def _find_only_folder(all_files: tuple[PurePosixPath, ...]) -> PurePosixPath:
    """Return the single folder of all files but documentation, if it is no version; else the root."""
    tops = {path.parts[0] for path in all_files if len(path.parts) > 1}
    loose = [path for path in all_files if len(path.parts) == 1]
    nested = len(tops) == 1 and all(map(_is_documentation, loose)) and not any(map(is_version, all_files))
    return PurePosixPath(tops.pop()) if nested else PurePosixPath()


def _is_documentation(path: PurePosixPath) -> bool:
    """Return True for a file of documentation, which no backend reads.

    >>> [name for name in ("README", "LICENSE.txt", "card.md", "labels.txt") if _is_documentation(PurePosixPath(name))]
    ['README', 'LICENSE.txt', 'card.md']
    """
    return path.suffix.lower() in _DOCUMENTS or path.stem.lower() in _DOCUMENTATION


def _build_not_a_model(row: Format, all_files: tuple[PurePosixPath, ...], uri: str, problem: str = "") -> Failure:
    names = ", ".join(str(path) for path in all_files[:8]) + (
        f" and {len(all_files) - 8} more" if len(all_files) > 8 else ""
    )
    detail = f" ({problem})" if problem else ""
    remedy = "" if row.is_triton_folder else describe_triton_layout(all_files, uri)
    message = f"{uri} is not a model of format {row.name}{detail}: it holds {names}; expected {row.expected}.{remedy}"
    return Failure(Reason.NOT_A_MODEL, message)
