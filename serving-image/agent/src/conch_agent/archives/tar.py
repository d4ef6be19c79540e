"""The members of a tar file: POSIX ustar and pax (IEEE Std 1003.1, "pax Interchange Format"), and GNU's long names.

Headers have bounds before they are read, and a header that contradicts itself is refused rather than repaired.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from conch_agent.archives.stream import CHUNK, Stream, build_failure

_BLOCK: Final = 512
_LONGEST_HEADER: Final = 1024 * 1024  # bytes of an extended header, which can have attributes of 64 KiB each
_LONGEST_PADDING: Final = 16 * 1024 * 1024  # bytes after the end; a tape's record has 10 KiB, and rarely up to some MiB
_LARGEST: Final = 2**63 - 1
_OCTAL: Final = re.compile(rb"[\0 ]*([0-7]*)[\0 ]*")
_RECORD: Final = re.compile(rb"([1-9][0-9]{0,6}) ")
_EMPTY: Final = bytes(_BLOCK)
_PAX, _PAX_ALL, _GNU_NAME, _GNU_LINK = b"x", b"g", b"L", b"K"
_EXTENDED: Final = frozenset({_PAX, _PAX_ALL, _GNU_NAME, _GNU_LINK})
_NAMES: Final = {_GNU_NAME: b"path", _GNU_LINK: b"linkpath"}


class Kind(StrEnum):
    """The kind of a member, as messages name it."""

    FILE = "a file"
    FOLDER = "a folder"
    HARD_LINK = "a hard link"
    SYMBOLIC_LINK = "a symbolic link"
    DEVICE = "a device"
    FIFO = "a FIFO"
    OTHER = "of an unknown kind"


_KINDS: Final = {
    **dict.fromkeys((b"0", b"\0", b"7"), Kind.FILE),
    b"1": Kind.HARD_LINK,
    b"2": Kind.SYMBOLIC_LINK,
    **dict.fromkeys((b"3", b"4"), Kind.DEVICE),
    b"5": Kind.FOLDER,
    b"6": Kind.FIFO,
}


@dataclass(frozen=True)
class Member:
    """A member of an archive.

    Attributes:
        name: Its name as the archive has it; bytes that are not UTF-8 are surrogates.
        kind: What it is.
        size: Size of its content in bytes.
        link: The name that a link has as its target.
    """

    name: str
    kind: Kind
    size: int = 0
    link: str = ""


def read_members(stream: Stream) -> Iterator[tuple[Member, Iterator[memoryview]]]:
    """Yield the members of an archive, each with the pieces of its content, which have to be read before the next.

    Args:
        stream: The archive.

    Raises:
        Failure: Unsupported for what is no tar file, a truncated one, or one with a header that is not read.
    """
    extended: dict[bytes, Mapping[bytes, bytes]] = {}
    is_first = True
    while block := stream.read(_BLOCK):
        if block == _EMPTY:
            _check_padding(stream)
            return
        _check(block, stream.place, is_first=is_first)
        is_first = False
        size, flag = _parse_number(block[124:136], stream.place), block[156:157]
        if flag in _EXTENDED:
            if flag in extended:
                raise build_failure(stream.place, "has two extended headers of one kind for a member")
            extended[flag] = _read_extended(stream, flag, size)
            continue
        values = {name: value for header in extended.values() for name, value in header.items()}
        extended = {}
        member = _build_member(block, size, values, stream.place)
        yield member, _read_content(stream, member)
        _read_exactly(stream, -member.size % _BLOCK, "in a member")
    if extended:
        raise build_failure(stream.place, "ends after an extended header")
    if is_first:
        raise build_failure(stream.place, "is empty")


def _check(block: bytes, place: str, *, is_first: bool) -> None:
    """Refuse a header that is incomplete or has another checksum."""
    if len(block) < _BLOCK and not is_first:
        raise build_failure(place, "ends within a header")
    checksum = _OCTAL.fullmatch(block[148:156])
    if not checksum or int(checksum[1] or b"0", 8) != sum(block) - sum(block[148:156]) + 8 * ord(" "):
        raise build_failure(place, "is no tar file" if is_first else "has a header with a wrong checksum")


def _build_member(block: bytes, size: int, values: Mapping[bytes, bytes], place: str) -> Member:
    name, flag = _cut(block[:100]), block[156:157]
    if block[257:263] == b"ustar\0" and (prefix := _cut(block[345:500])):
        name = prefix + b"/" + name
    if flag == b"S" or any(key.startswith(b"GNU.sparse.") for key in values):
        problem = f"has the sparse file {_decode(name)[:200]!r}, which the agent does not unpack: use no --sparse"
        raise build_failure(place, problem)
    name = values.get(b"path", name)
    kind = _KINDS.get(flag, Kind.OTHER)
    if kind == Kind.FILE and name.endswith(b"/"):  # as before POSIX
        kind = Kind.FOLDER
    if b"size" in values:
        size = _parse_decimal(values[b"size"], place)
    link = _decode(values.get(b"linkpath", _cut(block[157:257])))
    return Member(_decode(name), kind, size if kind in {Kind.FILE, Kind.OTHER} else 0, link)


def _read_content(stream: Stream, member: Member) -> Iterator[memoryview]:
    missing = member.size
    while missing:
        piece = stream.read_some(min(missing, CHUNK))
        if not piece:
            raise build_failure(stream.place, f"ends within its member {member.name[:200]!r}")
        missing -= len(piece)
        yield piece


def _read_extended(stream: Stream, flag: bytes, size: int) -> Mapping[bytes, bytes]:
    """Return the values of an extended header by name."""
    if size > _LONGEST_HEADER:
        problem = f"has an extended header of {size} bytes, and the agent reads {_LONGEST_HEADER} at most"
        raise build_failure(stream.place, problem)
    body = _read_exactly(stream, size, "in an extended header")
    _read_exactly(stream, -size % _BLOCK, "in an extended header")
    if flag in _NAMES:
        return {_NAMES[flag]: _cut(body)}
    values = _parse_records(body, stream.place)
    used = {b"path", b"linkpath", b"size"} & values.keys()
    if flag == _PAX_ALL and used:
        raise build_failure(stream.place, f"sets {_decode(min(used))!r} for all its members")
    return values


def _parse_records(body: bytes, place: str) -> Mapping[bytes, bytes]:
    """Return the records of a pax header: each is its own length, a blank, `name=value` and a line feed."""
    values: dict[bytes, bytes] = {}
    begin = 0
    while begin < len(body):
        found = _RECORD.match(body, begin)
        end = begin + int(found[1]) if found else 0
        name, equals, value = body[found.end() : end - 1].partition(b"=") if found else (b"", b"", b"")
        if not name or not equals or end > len(body) or body[end - 1 : end] != b"\n":
            raise build_failure(place, "has an extended header that is no list of name=value")
        values[name] = value
        begin = end
    return values


def _read_exactly(stream: Stream, size: int, where: str) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise build_failure(stream.place, f"ends {where}")
    return content


def _check_padding(stream: Stream) -> None:
    """Refuse what follows the end of an archive, other than some zeros."""
    size = 0
    while piece := stream.read_some(CHUNK):
        size += len(piece)
        if bytes(piece).strip(b"\0") or size > _LONGEST_PADDING:
            raise build_failure(stream.place, "has other data after its end, or over 16 MiB of zeros")


def _parse_number(field: bytes, place: str) -> int:
    """Return a number of a header: octal digits, or in base 256, as GNU writes those that do not fit."""
    if field[0] == 0x80:
        value = int.from_bytes(field[1:], "big")
    elif found := _OCTAL.fullmatch(field):
        value = int(found[1] or b"0", 8)
    else:
        raise build_failure(place, "has a member with a size that is negative or no number")
    return _check_size(value, place)


def _parse_decimal(value: bytes, place: str) -> int:
    if not re.fullmatch(rb"[0-9]{1,19}", value):
        raise build_failure(place, "has a member with a size that is negative or no number")
    return _check_size(int(value), place)


def _check_size(value: int, place: str) -> int:
    if value > _LARGEST:
        raise build_failure(place, f"has a member of {value} bytes, which no file has")
    return value


def _cut(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _decode(name: bytes) -> str:
    return name.decode(errors="surrogateescape")
