"""Sources against real servers: what is listed, and what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from conch_agent.fetch import Fetch
from conch_agent.reasons import Failure, Reason
from conch_agent.sources.s3 import S3Source
from tests.serving.store import PUBLIC, Store


async def test_folder_markers_of_consoles_are_no_files(store: Store, tmp_path: Path) -> None:
    for marker in ("m/", "m/1/", "m/1/assets/", "m/empty/", "m/1/.gitkeep", "m/.DS_Store", "m/._model.onnx"):
        store.put_raw(marker)
    store.put_raw("m/1/model.onnx", b"model")
    store.put_raw("m/1/assets/table", b"table")
    store.put_raw("m/1/__init__.py")
    source = S3Source(f"s3://{PUBLIC}/m", store.secret)
    listing = await source.list_files()
    assert [str(item.path) for item in listing.items] == ["1/__init__.py", "1/assets/table", "1/model.onnx"]
    fetched = await Fetch(source, tmp_path).run(listing)
    assert (fetched.files / "1" / "__init__.py").read_bytes() == b""
    assert (fetched.files / "1" / "assets" / "table").read_bytes() == b"table"


async def test_a_prefix_of_nothing_but_markers_is_empty(store: Store) -> None:
    for marker in ("folders/", "folders/1/", "folders/1/.keep"):
        store.put_raw(marker)
    with pytest.raises(Failure) as raised:
        await S3Source(f"s3://{PUBLIC}/folders", store.secret).list_files()
    assert raised.value.reason == Reason.EMPTY
    assert "1/.keep" in raised.value.message


async def test_an_empty_file_by_its_own_key(store: Store) -> None:
    store.put_raw("one/empty.txt")
    listing = await S3Source(f"s3://{PUBLIC}/one/empty.txt", store.secret).list_files()
    assert [(str(item.path), item.size) for item in listing.items] == [("empty.txt", 0)]
