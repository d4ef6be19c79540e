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


async def test_names_with_spaces_unicode_and_1024_bytes(store: Store, tmp_path: Path) -> None:
    """A key of S3 has up to 1,024 bytes, the prefix included."""
    long = "/".join([*["\u00e9" * 120] * 4, "x" * 58])
    names = ["a name + 100% & more=1.txt", " leading and trailing ", "模型/größe.bin", "e\u0301/\U0001f600", long]
    assert len(f"n/{long}".encode()) == 1024
    for name in names:
        store.put_raw(f"n/{name}", name.encode())
    source = S3Source(f"s3://{PUBLIC}/n", store.secret)
    listing = await source.list_files()
    assert {str(item.path) for item in listing.items} == set(names)
    fetched = await Fetch(source, tmp_path).run(listing)
    assert {name: (fetched.files / name).read_bytes().decode() for name in names} == {name: name for name in names}


async def test_a_prefix_that_is_the_beginning_of_another_folder(store: Store) -> None:
    for key in ("begin/model.onnx", "begin-2/model.onnx", "begin2/other", "begin.onnx", "beginning/x"):
        store.put_raw(key, b"x")
    for uri in (f"s3://{PUBLIC}/begin", f"s3://{PUBLIC}/begin/"):
        listing = await S3Source(uri, store.secret).list_files()
        assert [item.key for item in listing.items] == ["begin/model.onnx"]
    for prefix in ("beg", "begin/mod"):
        with pytest.raises(Failure) as raised:
            await S3Source(f"s3://{PUBLIC}/{prefix}", store.secret).list_files()
        assert raised.value.reason == Reason.EMPTY
        assert raised.value.message == (
            f"s3://{PUBLIC}/{prefix} holds no files. Check the path (is the prefix spelt as in the store?), or upload"
            " the model there."
        )


async def test_an_empty_prefix(store: Store) -> None:
    """The bucket itself; one without files is reported."""
    store.put("whole", {"model.onnx": b"x", "1/y": b"y"})
    listing = await S3Source("s3://whole", store.secret).list_files()
    assert [str(item.path) for item in listing.items] == ["1/y", "model.onnx"]
    store.bucket("whole").delete(["model.onnx", "1/y"])
    with pytest.raises(Failure) as raised:
        await S3Source("s3://whole/", store.secret).list_files()
    assert raised.value.reason == Reason.EMPTY
    assert raised.value.message == (
        "s3://whole/ holds no files. Check the path (is the prefix spelt as in the store?), or upload the model there."
    )
