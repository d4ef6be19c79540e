"""The folder of a pipeline on a disk that is full."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from conch_agent.disk import RESERVE
from conch_agent.pipeline_folder import lay_out_pipeline
from conch_agent.reasons import Failure, Reason
from conch_agent.settings import Settings
from tests.support.namespaces import fill_disk, mount_disk, run_apart
from tests.unit.test_pipeline import CLASSIFY, CONFIGS, DECODE, build_source


def test_a_pipeline_for_which_the_disk_has_no_space(tmp_path: Path) -> None:
    run_apart(partial(_lay_out_on_full_disk, tmp_path))


def _lay_out_on_full_disk(root: Path) -> None:
    mount_disk(root, RESERVE)
    settings, source = Settings(root=root), build_source(DECODE, CLASSIFY)
    for folder in (settings.repository, settings.downloads):
        folder.mkdir(parents=True)
    fill_disk(root / "filler", 0)
    with pytest.raises(Failure, match=r"pipeline:all: the models volume is full\.") as caught:
        lay_out_pipeline(source, CONFIGS, settings)
    assert caught.value.reason == Reason.DISK_FULL
    (root / "filler").unlink()
    assert lay_out_pipeline(source, CONFIGS, settings).steps == ("classify", "decode")
