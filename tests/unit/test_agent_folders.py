"""Folders that Triton lists are there at each moment, whatever replaces them."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pytest

from conch_agent import folders
from conch_agent.folders import empty_trash, find_trash, list_trash, put_in_place, remove_folder
from conch_agent.layout import Plan, build_folder
from tests.support.namespaces import make_read_only, mount_disk, run_apart

FILES = 300


@contextmanager
def watch(folder: Path) -> Iterator[list[bool]]:
    """List a folder without end, as Triton does for its index; yield whether each listing was complete."""
    listings: list[bool] = []
    names, is_over = set(folder.iterdir()), threading.Event()

    def run() -> None:
        while not is_over.is_set():
            listings.append(names <= set(folder.iterdir()))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield listings
    finally:
        is_over.set()
        thread.join()


@pytest.mark.parametrize("has_cache", [True, False])
def test_a_model_folder_is_there_while_it_is_replaced(tmp_path: Path, *, has_cache: bool) -> None:
    """The pod would not be ready: Triton's index lacks a model whose folder is away."""
    source, repository, downloads = tmp_path / "files", tmp_path / "repository", tmp_path / "downloads"
    for folder in (source, repository, downloads, tmp_path / "cache"):
        folder.mkdir()
    if has_cache:  # on another file system, to which the model's download folder leads
        (downloads / "m").symlink_to(tmp_path / "cache")
    for number in range(FILES):
        (source / f"{number}").touch()
    plan = Plan({PurePosixPath(f"1/{number}"): PurePosixPath(f"{number}") for number in range(FILES)}, (1,), None)

    def lay_out(round_: int) -> None:
        laid, trash = downloads / "m" / "laid", downloads / "trash"
        build_folder(plan, source, laid, repository / "m", trash, config=f"{round_}", marker={})

    lay_out(0)
    with watch(repository) as listings:
        for round_ in range(1, 20):
            lay_out(round_)
            assert (repository / "m" / "config.pbtxt").read_text() == f"{round_}"
    assert listings
    assert all(listings)
    assert (repository / "m").is_symlink() == has_cache
    assert [path.name for path in downloads.iterdir()] == ["m"]
    assert len(list((tmp_path / "cache").iterdir())) == has_cache


CANNOT_EXCHANGE = 1 << 7  # a flag that the kernel refuses with EINVAL, as NFS does the exchange


def test_a_file_system_that_cannot_exchange_renames_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_RENAME_EXCHANGE", CANNOT_EXCHANGE)
    for name in ("new", "old", "new-former"):  # the last one is of a run that was killed
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(name)
    put_in_place(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old" / "name").read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("exchanges", [True, False])
def test_what_is_there_stays_when_it_cannot_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, exchanges: bool
) -> None:
    if not exchanges:
        monkeypatch.setattr(folders, "_RENAME_EXCHANGE", CANNOT_EXCHANGE)
    (tmp_path / "old").mkdir()
    with pytest.raises(FileNotFoundError, match="new"):
        put_in_place(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").is_dir()


def test_what_a_killed_process_left_is_deleted_and_nothing_else(tmp_path: Path) -> None:
    for folder in (*list_trash(tmp_path, "m"), tmp_path / "m", tmp_path / "cache"):
        folder.mkdir()
    find_trash(tmp_path, "cached").symlink_to(tmp_path / "cache")
    empty_trash(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    empty_trash(tmp_path / "absent")


def test_what_cannot_be_deleted_stays_and_ends_no_agent(tmp_path: Path) -> None:
    """The disk of a node may become read-only. Its models are laid out, and the agent has nothing to write."""
    link, loop, folder = (find_trash(tmp_path, name) for name in ("link", "loop", "folder"))

    def story() -> None:
        mount_disk(tmp_path, 1 << 20)
        link.symlink_to(tmp_path / "away")
        loop.symlink_to(loop)
        folder.mkdir()
        make_read_only(tmp_path)
        empty_trash(tmp_path)
        assert set(tmp_path.iterdir()) == {link, loop, folder}

    run_apart(story)


def test_a_link_that_leads_nowhere_is_replaced_and_removed(tmp_path: Path) -> None:
    """Such as after the claim of a cache was emptied by hand."""
    link, new = tmp_path / "m", tmp_path / "new"
    link.symlink_to(tmp_path / "away")
    new.mkdir()
    put_in_place(new, link)
    assert not link.is_symlink()
    shutil.rmtree(link)
    link.symlink_to(tmp_path / "away")
    remove_folder(link, tmp_path / "trash")
    assert list(tmp_path.iterdir()) == []
