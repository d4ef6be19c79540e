"""Tar files as packers write them, and as none does."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable

BLOCK = 512
Entry = tuple[tarfile.TarInfo, bytes]


def file(name: str, content: bytes = b"") -> Entry:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info, content


def special(name: str, kind: bytes, link: str = "") -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info, b""


def folder(name: str) -> Entry:
    return special(name, tarfile.DIRTYPE)


def pack(*entries: Entry, form: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a tar file of these entries."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def pack_files(files: dict[str, bytes]) -> bytes:
    return pack(*(file(name, content) for name, content in files.items()))


def header(name: bytes = b"a", size: bytes = b"00000000000\0", flag: bytes = b"0", link: bytes = b"") -> bytes:
    """Return a header with these fields as they are, and its checksum."""
    block = bytearray(BLOCK)
    for offset, value in ((0, name), (124, size), (148, b" " * 8), (156, flag), (157, link), (257, b"ustar\x0000")):
        block[offset : offset + len(value)] = value
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pad(content: bytes) -> bytes:
    return content + bytes(-len(content) % BLOCK)


def extended(body: bytes, flag: bytes = b"x") -> bytes:
    """Return an extended header."""
    return header(b"header", b"%011o\0" % len(body), flag) + pad(body)


def records(values: Iterable[tuple[str, str]]) -> bytes:
    """Return the records of a pax header."""
    found = b""
    for name, value in values:
        text = f" {name}={value}\n".encode()
        size = len(text) + 1
        while len(str(size)) + len(text) != size:
            size += 1
        found += str(size).encode() + text
    return found
