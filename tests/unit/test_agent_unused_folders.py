"""Folders of models that the manifest does not have are deleted, and those that are laid out now are not."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from conch_agent.folders import find_trash, list_trash
from conch_agent.loop import Agent
from conch_agent.settings import Settings
from conch_agent.triton import Triton
from conch_contract import ModelSource
from tests.support.namespaces import make_read_only, mount_disk, run_apart
from tests.support.ports import free_port


async def test_a_model_is_laid_out_while_another_one_leaves(tmp_path: Path) -> None:
    settings = Settings(root=tmp_path)
    repository, downloads = settings.repository, settings.downloads
    laid, left = list_trash(downloads, "here"), find_trash(downloads, "gone")
    folders = (repository / "here", repository / "gone", downloads / "here", downloads / "gone", *laid, left)
    for folder in (*folders, settings.decrypted / "gone"):
        (folder / "1").mkdir(parents=True)
    triton = Triton(f"127.0.0.1:{free_port()}", None)  # where no Triton is: nothing has to be unloaded
    source = ModelSource(name="here", format="triton", storage_uri="s3://models/here")
    await Agent(settings, triton)._remove_others({"here": source})
    await triton.close()
    assert [path.name for path in repository.iterdir()] == ["here"]
    assert set(downloads.iterdir()) == {downloads / "here", *laid}
    assert all((folder / "1").is_dir() for folder in laid)
    assert list(settings.decrypted.iterdir()) == []


def test_a_disk_that_has_become_read_only_ends_no_agent(tmp_path: Path) -> None:
    run_apart(partial(_leave_on_read_only_disk, tmp_path), has_threads=True)


def _leave_on_read_only_disk(root: Path) -> None:
    mount_disk(root, 1 << 20)
    settings = Settings(root=root)
    for folder in (settings.repository / "gone", settings.repository / "left", settings.downloads, settings.decrypted):
        folder.mkdir(parents=True)
    make_read_only(root)

    async def remove() -> None:
        triton = Triton(f"127.0.0.1:{free_port()}", None)
        await Agent(settings, triton)._remove_others({})
        await triton.close()

    asyncio.run(remove())
