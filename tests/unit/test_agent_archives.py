"""Archives of models: what packers write is unpacked, and what would leave the folder or fill the disk is refused."""

from __future__ import annotations

import gzip
import os
import stat
import subprocess
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest
from backports import zstd

from conch_agent.archives import Limits, Unpacker
from conch_agent.archives import stream as streams
from conch_agent.archives import unpack as unpacking
from conch_agent.reasons import Failure, Reason
from conch_agent.sources.base import Archives, Item
from tests.support.tars import BLOCK, extended, file, folder, header, pack, pack_files, records, special

FILES = {"config.pbtxt": b"max_batch_size: 1", "1/model.onnx": bytes(range(256)) * 9000, "1/empty": b""}
END = bytes(2 * BLOCK)


def unpack(
    root: Path, *contents: bytes, path: str = "", is_folder: bool = False, are_layers: bool = False, max_bytes: int = 0
) -> dict[str, bytes]:
    """Unpack archives; return the files."""
    target = root / "target"
    target.mkdir()
    files = [root / f"layer-{number}" for number, _ in enumerate(contents, start=1)]
    for each, content in zip(files, contents, strict=True):
        each.write_bytes(content)
    items = tuple(Item(PurePosixPath(each.name), None, "", "") for each in files)
    archives = Archives(items, path, is_folder, are_layers)
    unpacker = Unpacker("oci://r.example/m:v1", archives, target, Limits(max_bytes, lambda *_: None))
    for _ in unpacker.run(files):
        pass
    return read(target)


def read(target: Path) -> dict[str, bytes]:
    return {str(each.relative_to(target)): each.read_bytes() for each in target.rglob("*") if each.is_file()}


def refuse(root: Path, reason: Reason, *contents: bytes, **options: object) -> str:
    """Return the message with which archives are refused; nothing is outside of the folder."""
    before = sorted(root.parent.iterdir())
    with pytest.raises(Failure) as raised:
        unpack(root, *contents, **options)  # type: ignore[arg-type]
    assert raised.value.reason == reason, raised.value
    assert raised.value.message.startswith("oci://r.example/m:v1: ")
    assert sorted(root.parent.iterdir()) == before
    assert len(raised.value.message) < 1000
    return raised.value.message


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "zstd": zstd.compress,
    "gzip of several members": lambda data: (
        gzip.compress(data[:1000]) + gzip.compress(data[1000:]) + gzip.compress(b"")
    ),
    "zstd of several frames": lambda data: (
        b"\x50\x2a\x4d\x18\2\0\0\0ab"
        + zstd.compress(data[:1000])
        + zstd.compress(data[1000:])
        + b"\x5f\x2a\x4d\x18"
        + bytes(4)
    ),
}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_files(tmp_path: Path, compression: str, form: int) -> None:
    content = pack(folder("1"), *(file(name, content) for name, content in FILES.items()), form=form)
    assert unpack(tmp_path, COMPRESSIONS[compression](content)) == FILES


@pytest.mark.parametrize(
    "options", [["."], ["config.pbtxt", "1"], ["--format=v7", "."], ["--format=posix", "."], ["-b1", "."]]
)
def test_what_gnu_tar_packs(tmp_path: Path, options: list[str]) -> None:
    for name, content in FILES.items():
        (tmp_path / "origin" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "origin" / name).write_bytes(content)
    command = ["tar", "--create", "--gzip", "--file=-", "--directory", str(tmp_path / "origin"), *options]
    assert unpack(tmp_path, subprocess.run(command, capture_output=True, check=True).stdout) == FILES


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_other_letters(tmp_path: Path, form: int) -> None:
    files = {f"{'a' * 200}/{'b' * 200}/ä": b"1", "größe": b"2"}
    content = pack(*(file(name, content) for name, content in files.items()), form=form)
    assert unpack(tmp_path, content) == files


def test_a_ustar_name_with_a_prefix(tmp_path: Path) -> None:
    name = f"{'a' * 120}/{'b' * 90}"
    assert unpack(tmp_path, pack(file(name, b"1"), form=tarfile.USTAR_FORMAT)) == {name: b"1"}


def test_what_is_never_part_of_a_model_is_left_out(tmp_path: Path) -> None:
    hidden = [file(".git/config", b"1"), file("._model", b"1"), special(".link", tarfile.SYMTYPE, "/etc")]
    assert unpack(tmp_path, pack(*hidden, file("model", b"2"))) == {"model": b"2"}


def test_hard_links_are_the_file_they_name(tmp_path: Path) -> None:
    content = pack(file("./1/a", b"1"), special("./2/b", tarfile.LNKTYPE, "./1/a"))
    assert unpack(tmp_path, content) == {"1/a": b"1", "2/b": b"1"}


def test_modes_and_owners_are_those_of_the_agent(tmp_path: Path) -> None:
    info, content = file("model", b"1")
    info.mode, info.uid, info.uname = 0o6777, 12345, "root"
    unpack(tmp_path, pack((info, content)))
    status = (tmp_path / "target" / "model").stat()
    assert stat.S_IMODE(status.st_mode) & ~0o644 == 0
    assert status.st_uid == os.getuid()


@pytest.mark.parametrize(
    ("path", "is_folder", "expected"),
    [
        ("1", False, {"model.onnx": FILES["1/model.onnx"], "empty": b""}),
        ("1", True, {"model.onnx": FILES["1/model.onnx"], "empty": b""}),
        ("1/model.onnx", False, {"model.onnx": FILES["1/model.onnx"]}),
    ],
)
def test_a_path_in_the_archive(tmp_path: Path, path: str, is_folder: bool, expected: dict[str, bytes]) -> None:
    assert unpack(tmp_path, pack_files(FILES), path=path, is_folder=is_folder) == expected


def test_outside_of_the_path_links_and_odd_names_are_no_part(tmp_path: Path) -> None:
    others = [
        special("bin", tarfile.SYMTYPE, "usr/bin"),
        file("system\\x2d.slice"),
        special("dev/null", tarfile.CHRTYPE),
    ]
    assert unpack(tmp_path, pack(*others, file("models/a", b"1")), path="models") == {"a": b"1"}


LAYERS: dict[str, tuple[list[bytes], dict[str, bytes]]] = {
    "a later file": ([pack_files({"m/a": b"1", "m/b": b"1"}), pack_files({"m/a": b"2"})], {"a": b"2", "b": b"1"}),
    "a removed file": ([pack_files({"m/a": b"1", "m/b": b"1"}), pack_files({"m/.wh.a": b""})], {"b": b"1"}),
    "a removed folder": ([pack_files({"m/x/a": b"1", "m/b": b"1"}), pack_files({"m/.wh.x": b""})], {"b": b"1"}),
    "all was removed": (
        [pack_files({"m/a": b"1"}), pack_files({".wh.m": b""}), pack_files({"m/b": b"2"})],
        {"b": b"2"},
    ),
    "an emptied folder": (
        [pack_files({"m/x/a": b"1"}), pack_files({"m/x/b": b"2", "m/x/.wh..wh..opq": b""})],
        {"x/b": b"2"},
    ),
    "an emptied root": ([pack_files({"m/a": b"1"}), pack_files({".wh..wh..opq": b"", "m/b": b"2"})], {"b": b"2"}),
    "a file in place of a folder": ([pack_files({"m/x/a": b"1"}), pack_files({"m/x": b"2"})], {"x": b"2"}),
    "a folder in place of a file": ([pack_files({"m/x": b"1"}), pack_files({"m/x/a": b"2"})], {"x/a": b"2"}),
    "an empty folder in place of a file": (
        [pack_files({"m/x": b"1", "m/a": b"1"}), pack(folder("m/x"))],
        {"a": b"1"},
    ),
    "removed and there again": (
        [pack_files({"m/a": b"1"}), pack_files({"m/.wh.a": b""}), pack_files({"m/a": b"3"})],
        {"a": b"3"},
    ),
    "removed and replaced in one layer": (
        [pack_files({"m/a": b"1"}), pack_files({"m/a": b"2", "m/.wh.a": b""})],
        {"a": b"2"},
    ),
    "names of aufs": ([pack_files({"m/a": b"1", "m/.wh..wh.plnk/x": b""})], {"a": b"1"}),
    "a link to a replaced file": (
        [pack(file("m/a", b"1"), special("m/b", tarfile.LNKTYPE, "m/a")), pack_files({"m/c": b"2"})],
        {"a": b"1", "b": b"1", "c": b"2"},
    ),
    "an empty layer": ([pack_files({"m/a": b"1"}), gzip.compress(END)], {"a": b"1"}),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_an_image(tmp_path: Path, name: str) -> None:
    layers, expected = LAYERS[name]
    assert unpack(tmp_path, *layers, path="m", is_folder=True, are_layers=True) == expected


REMEDY = (
    ". The agent unpacks plain files and folders: pack the model anew, with files in place of links (tar --dereference)"
    " and with each name once, below its folder."
)
LEADS_OUT = f"whose name leads out of the model's folder{REMEDY}"
NO_NAME = (
    "which would leave its folder or cannot be a file's: a model's files need plain relative names. Rename or remove"
    " it."
)
OTHER_NAME = "Rename it, or point storageUri at another folder."
# A name, and what the message has after it.
NAMES = {
    "a name with ..": ("../a", LEADS_OUT),
    "a name with .. in it": ("x/../../a", LEADS_OUT),
    "an absolute name": ("/etc/passwd", LEADS_OUT),
    "an absolute name after a blank folder": (".//etc/passwd", NO_NAME),
    "an empty folder name": ("a//b", NO_NAME),
    "a backslash": ("a\\b", NO_NAME),
    "a line feed": ("a\nb", NO_NAME),
    "a control character": ("a\x01b", NO_NAME),
    "a long name": (
        "a/" * 600 + "a",
        f"which has 1201 bytes: the agent fetches paths of up to 1024 bytes. {OTHER_NAME}",
    ),
    "a long name of a file": (
        "a" * 300,
        f"of which one part has 300 bytes: a file system holds names of up to 255 bytes. {OTHER_NAME}",
    ),
    "bytes that are not UTF-8": ("a\udcff", f"which is not UTF-8. {OTHER_NAME}"),
}


@pytest.mark.parametrize("name", NAMES)
def test_unsafe_names_of_members(tmp_path: Path, name: str) -> None:
    text, problem = NAMES[name]
    message = refuse(tmp_path, Reason.UNSAFE_PATH, pack(file(text, b"1"), form=tarfile.GNU_FORMAT))
    has = "has the member" if problem == LEADS_OUT else "holds the name"
    shown = text.removeprefix("./") if text.startswith(".//") else text[:200]
    assert message == f"oci://r.example/m:v1: layer-1 {has} {shown!r}, {problem}"


# A member, and what the message has of it.
KINDS = {
    "a symbolic link": (
        special("a", tarfile.SYMTYPE, "/etc/passwd"),
        "has the member 'a', which is a symbolic link to '/etc/passwd'",
    ),
    "a symbolic link inside": (
        special("a", tarfile.SYMTYPE, "model"),
        "has the member 'a', which is a symbolic link to 'model'",
    ),
    "a hard link to a file outside": (
        special("a", tarfile.LNKTYPE, "/etc/passwd"),
        "has the member 'a', which is a hard link to '/etc/passwd', out of the model's folder",
    ),
    "a hard link upwards": (
        special("a", tarfile.LNKTYPE, "../x"),
        "has the member 'a', which is a hard link to '../x', out of the model's folder",
    ),
    "a hard link to nothing": (
        special("a", tarfile.LNKTYPE, "later"),
        "has the member 'a', which is a hard link to 'later', and the model has no such file before it",
    ),
    "a hard link to itself": (
        special("a", tarfile.LNKTYPE, "a"),
        "has the member 'a', which is a hard link to 'a', and the model has no such file before it",
    ),
    "a character device": (special("a", tarfile.CHRTYPE), "has the member 'a', which is a device"),
    "a block device": (special("a", tarfile.BLKTYPE), "has the member 'a', which is a device"),
    "a FIFO": (special("a", tarfile.FIFOTYPE), "has the member 'a', which is a FIFO"),
    "an unknown kind": (special("a", b"D"), "has the member 'a', which is of an unknown kind"),
    "a file twice": (file("model", b"2"), "has 'model' twice, or a file where its folder is"),
    "a file that is a folder": (file("model/a", b"2"), "has 'model/a' twice, or a file where its folder is"),
    "a folder that is a file": (folder("model"), "has 'model' twice, or a file where its folder is"),
    "a file in place of a folder": (file("1", b"2"), "has '1' twice, or a file where its folder is"),
}


@pytest.mark.parametrize("name", KINDS)
def test_members_that_are_refused(tmp_path: Path, name: str) -> None:
    member, problem = KINDS[name]
    message = refuse(tmp_path, Reason.UNSAFE_PATH, pack(file("model", b"1"), file("1/x", b""), member))
    assert message == f"oci://r.example/m:v1: layer-1 {problem}{REMEDY}"


def test_the_folder_of_an_image_is_a_link(tmp_path: Path) -> None:
    content = pack(special("models", tarfile.SYMTYPE, "data"), file("data/a", b"1"))
    message = refuse(tmp_path, Reason.UNSAFE_PATH, content, path="models", is_folder=True, are_layers=True)
    assert "has 'models' as a symbolic link" in message


def test_a_path_that_no_archive_has(tmp_path: Path) -> None:
    message = refuse(tmp_path, Reason.NOT_FOUND, pack_files({"opt/a": b"1", "usr/b": b""}), path="models")
    assert "no file of a model in 'models'; at their top they have 'opt' and 'usr'" in message


GOOD = pack_files(FILES)
BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "text": (b"hello" * 200, "is no tar file"),
    "a short text": (b"hello", "is no tar file"),
    "bzip2": (b"BZh91AY&SY", "is compressed with bzip2"),
    "xz": (b"\xfd7zXZ\0\0", "is compressed with xz"),
    "zip": (b"PK\x03\x04", "is compressed with zip"),
    "gzip of gzip": (gzip.compress(gzip.compress(GOOD)), "is no tar file"),
    "truncated in a header": (GOOD[: BLOCK + 700], "ends within"),
    "truncated in a member": (GOOD[:-5000][: BLOCK * 8], "ends within its member '1/model.onnx'"),
    "truncated gzip": (gzip.compress(GOOD)[:-9], "ends within its compressed data"),
    "truncated zstd": (zstd.compress(GOOD)[:-9], "ends within its compressed data"),
    "damaged gzip": (gzip.compress(GOOD)[:-6] + b"abcdef", "cannot be decompressed"),
    "damaged zstd": (
        zstd.compress(GOOD, options={zstd.CompressionParameter.checksum_flag: 1})[:-1] + b"?",
        "cannot be",
    ),
    "a window of a gibibyte": (b"\x28\xb5\x2f\xfd\x00\xa0\x01\0\0", "cannot be decompressed"),
    "garbage after gzip": (gzip.compress(GOOD) + b"garbage", "has other data after its compressed data"),
    "garbage after zstd": (zstd.compress(GOOD) + b"garbage", "has other data after its compressed data"),
    "garbage after the end": (GOOD + b"garbage", "has other data after its end"),
    "a second archive": (GOOD + GOOD, "has other data after its end"),
    "zeros without an end": (gzip.compress(GOOD + bytes(20 << 20)), "over 16 MiB of zeros"),
    "a wrong checksum": (header() + b"a" * BLOCK + END, "a header with a wrong checksum"),
    "a negative size": (header(size=b"\xff" * 12) + END, "negative or no number"),
    "a size that is text": (header(size=b"abc") + END, "negative or no number"),
    "a size with a sign": (header(size=b"-0000000001\0") + END, "negative or no number"),
    "an endless size": (header(size=b"\x80" + b"\xff" * 11) + END, "which no file has"),
    "a size beyond the end": (header(size=b"\x80" + b"\0" * 4 + b"\x7f" + b"\xff" * 6) + END, "ends within its member"),
    "a negative size of pax": (extended(records([("size", "-1")])) + header() + END, "negative or no number"),
    "an endless size of pax": (extended(records([("size", "9" * 19)])) + header() + END, "which no file has"),
    "a size of pax with many digits": (extended(records([("size", "9" * 5000)])) + header() + END, "negative or no"),
    "a pax header of megabytes": (
        extended(records([("path", "a" * (2 << 20))])) + header() + END,
        "extended header of",
    ),
    "a long name of megabytes": (extended(b"a" * (2 << 20), b"L") + header() + END, "extended header of"),
    "a pax header that is declared endless": (
        header(size=b"\x80" + b"\0" * 4 + b"\x7f" * 7, flag=b"x") + END,
        "extended",
    ),
    "a pax header of text": (extended(b"hello") + header() + END, "no list of name=value"),
    "a pax record of length 0": (extended(b"0 a=b\n") + header() + END, "no list of name=value"),
    "a pax record without a value": (extended(b"5 ab\n") + header() + END, "no list of name=value"),
    "a pax record beyond the end": (extended(b"99 a=b\n") + header() + END, "no list of name=value"),
    "a path for all": (extended(records([("path", "a")]), b"g") + header() + END, "sets 'path' for all"),
    "two pax headers": (extended(b"") + extended(b"") + header() + END, "two extended headers"),
    "a pax header at the end": (extended(records([("path", "a")])), "ends after an extended header"),
    "a truncated pax header": (extended(records([("path", "a")]))[:520], "ends in an extended header"),
    "a sparse file of GNU": (header(flag=b"S") + END, "has the sparse file 'a'"),
    "a sparse file of pax": (extended(records([("GNU.sparse.major", "1")])) + header() + END, "has the sparse file"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_archives_that_are_refused(tmp_path: Path, name: str) -> None:
    content, problem = BROKEN[name]
    assert problem in refuse(tmp_path, Reason.UNSUPPORTED, content)


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MOST_FILES", 10)
    message = refuse(tmp_path, Reason.TOO_LARGE, pack(*(file(str(number)) for number in range(12))))
    assert "over 10 members" in message
    assert "'10'" in message


def test_an_archive_with_a_million_entries(tmp_path: Path) -> None:
    compressor = zstd.ZstdCompressor()
    members = header(b".git/", flag=b"5") * 1000
    packed = b"".join(compressor.compress(members) for _ in range(1000)) + compressor.flush()
    assert len(packed) < 1_000_000
    assert refuse(tmp_path, Reason.TOO_LARGE, packed) == (
        "oci://r.example/m:v1: layer-1 has over 100000 members, or over 200000 files, folders and whiteouts in the"
        " model's folder, at '.git/': that is no model. Pack its folder alone."
    )


def test_too_many_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MOST_FILES", 10)
    assert "over 20 files, folders and" in refuse(tmp_path, Reason.TOO_LARGE, pack(file("a/" * 30 + "a"), file("b")))


def test_too_many_whiteouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MOST_FILES", 10)
    content = pack(*(file(f".wh.{number}") for number in range(30)))
    assert "whiteouts" in refuse(tmp_path, Reason.TOO_LARGE, content, are_layers=True)


def test_a_long_name_outside_of_the_folder(tmp_path: Path) -> None:
    content = pack(file("a" * 5000), file("models/a", b"1"))
    assert "name has 5000 letters" in refuse(tmp_path, Reason.UNSAFE_PATH, content, path="models")


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress])
def test_a_bomb_is_stopped_before_it_is_written(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    bomb = compress(pack_files({"a": b"1", "b": bytes(50 << 20)}))
    assert len(bomb) < 100_000
    message = refuse(tmp_path, Reason.TOO_LARGE, bomb, max_bytes=10 << 20)
    assert message == (
        "oci://r.example/m:v1: layer-1 has the member 'b' of 52428800 bytes after 1 bytes of others; this installation"
        " takes models up to 10485760."
    )
    assert read(tmp_path / "target") == {"a": b"1"}


def test_links_count_as_often_as_they_are_there(tmp_path: Path) -> None:
    links = [special(str(number), tarfile.LNKTYPE, "a") for number in range(20)]
    refuse(tmp_path, Reason.TOO_LARGE, pack(file("a", bytes(1000)), *links), max_bytes=10_000)


def test_memory_has_a_bound(tmp_path: Path) -> None:
    content = gzip.compress(pack_files({"a": bytes(100 << 20), "b": b"1"})[: (100 << 20) + BLOCK + 100], 1)
    tracemalloc.start()
    refuse(tmp_path, Reason.UNSUPPORTED, content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "target" / "a").stat().st_size == 100 << 20
    assert peak < 8 * streams.CHUNK


@pytest.mark.parametrize("size", [7, 511, 513])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_pieces_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, compression: str) -> None:
    monkeypatch.setattr(streams, "CHUNK", size)
    files = {"a/b": b"1" * 700, "c": bytes(range(256)) * 3}
    assert unpack(tmp_path, COMPRESSIONS[compression](pack_files(files))) == files
