"""Folders of models that the manifest does not have are deleted, and those that are laid out now are not."""

from __future__ import annotations

from pathlib import Path

from conch_agent.folders import find_trash, list_trash
from conch_agent.loop import Agent
from conch_agent.settings import Settings
from conch_agent.triton import Triton
from conch_contract import ModelSource
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
