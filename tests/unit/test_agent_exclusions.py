"""What is never part of a model is left out by every source, and what stands for a folder is no file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.base import Entry, build_listing
from conch_agent.sources.local import LocalSource

NEVER = [
    ".DS_Store",
    "._model.onnx",
    ".gitkeep",
    ".git/config",
    ".gitattributes",
    ".snapshot/hourly/model.onnx",
    ".zfs/snapshot/x",
    ".Trash-1000/files/model.onnx",
    ".ipynb_checkpoints/model.py",
    ".nfs000000000001",
    ".model.onnx.swp",
    "..data/model.onnx",
    "..2026_11_26_13_00_00.1/model.onnx",
    "lost+found",
    "lost+found/#123",
    "__MACOSX/._model.onnx",
    "__pycache__/model.cpython-311.pyc",
    "1/__pycache__/model.cpython-311.pyc",
    "1/.DS_Store",
    "Thumbs.db",
    "thumbs.DB",
    "desktop.ini",
    "Icon\r",
    "@eaDir/x",
    "_SUCCESS",
    "1_$folder$",
    "model.py~",
]
ALWAYS = [
    "model.onnx",
    "1/model.onnx",
    "__init__.py",
    "_metadata.json",
    "label~s.txt",
    "$x",
    "found",
    "README.md",
    "a.b",
]


def _names(*names: str) -> list[str]:
    found = [Entry(name, 1, "t", name) for name in names]
    return [str(item.path) for item in build_listing(found, "s3://b/m").items]


@pytest.mark.parametrize("name", NEVER)
def test_a_file_of_a_tool_is_no_part_of_a_model(name: str) -> None:
    assert _names("model.onnx", name) == ["model.onnx"]


@pytest.mark.parametrize("name", ALWAYS)
def test_every_other_file_is_part_of_a_model(name: str) -> None:
    assert name in _names("weights", name)


def test_a_mounted_folder_is_read_without_it(tmp_path: Path) -> None:
    root = tmp_path / ".models" / "m"  # what storageUri names is the user's choice
    for name in [*NEVER, "model.onnx"]:
        if name not in {"lost+found", "thumbs.DB"}:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text("x")
    (root / "..data").rename(root / "..new")
    (root / "..data").symlink_to("..new")
    (root / ".snapshots").symlink_to("/nowhere")
    os.mkfifo(root / ".lock")
    listing = LocalSource("pvc://claim/m", root, root)._walk()
    assert [str(item.path) for item in listing.items] == ["model.onnx"]


def test_folder_markers_are_no_files() -> None:
    markers = [Entry(name, 0, "t", name) for name in ("", "1", "1/", "1/assets", "empty/")]
    files = [Entry(name, 1, "t", name) for name in ("1/assets/x", "1/model.onnx")]
    empty = Entry("1/__init__.py", 0, "t", "k")
    listing = build_listing([*markers, *files, empty], "s3://b/m")
    assert [str(item.path) for item in listing.items] == ["1/__init__.py", "1/assets/x", "1/model.onnx"]


def test_a_marker_of_a_folder_of_excluded_files_is_no_file() -> None:
    found = [Entry("1", 0, "t", "1"), Entry("1/.keep", 0, "t", "1/.keep"), Entry("model.onnx", 1, "t", "m")]
    assert [str(item.path) for item in build_listing(found, "s3://b/m").items] == ["model.onnx"]


def test_a_name_that_is_a_file_and_a_folder_is_refused() -> None:
    with pytest.raises(Failure) as raised:
        build_listing([Entry("a", 3, "t", "a"), Entry("a/b", 1, "t", "a/b")], "s3://b/m")
    assert raised.value.reason == Reason.UNSAFE_PATH
    assert "'a' of 3 bytes" in raised.value.message


def test_only_excluded_files_are_named() -> None:
    with pytest.raises(Failure) as raised:
        _names(".DS_Store", "lost+found/x")
    assert raised.value.reason == Reason.EMPTY
    assert ".DS_Store, lost+found/x" in raised.value.message


@pytest.mark.parametrize("name", ["../model.onnx", "./model.onnx", "a/../../b"])
def test_unsafe_names_are_refused_not_excluded(name: str) -> None:
    with pytest.raises(Failure) as raised:
        _names(name)
    assert raised.value.reason == Reason.UNSAFE_PATH
