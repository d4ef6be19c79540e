"""The bytes of an archive, decompressed as they are read: memory holds one piece at a time, whatever is in it.

The compression is that of the first bytes. Media types and names of files are not read: clients write some of them for
all archives.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final, Protocol

from conch_agent.archives.zstandard import zstd
from conch_agent.reasons import Failure, Reason

CHUNK: Final = 1024 * 1024
# 2 to this power is the largest window in bytes: what `zstd` decompresses without an option. It is held in memory.
_WINDOW_LOG: Final = 27
_MAGIC_BYTES: Final = 6
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE: Final = b"\x2a\x4d\x18"  # after a byte of 0x50 to 0x5f (RFC 8878, section 3.1.2)
_REFUSED: Final = {b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"PK\x03\x04": "zip", b"\x04\x22\x4d\x18": "lz4"}


class _Decompressor(Protocol):
    """The decompression of one member of a gzip file, or one frame of Zstandard."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    """zlib with the interface of Python's other decompressors."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)  # with the header of gzip

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)


def _open_zstd() -> _Decompressor:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})


class Stream:
    """The decompressed bytes of an archive.

    Attributes:
        place: Which archive it is, with which messages begin.
    """

    def __init__(self, file: BinaryIO, place: str) -> None:
        """Begin to read.

        Args:
            file: The archive.
            place: Which archive it is, with which messages begin.

        Raises:
            Failure: Unsupported for a compression that is not read.
        """
        self.place = place
        self._pieces = _decompress(file, place)
        self._piece = memoryview(b"")

    def read(self, size: int) -> bytes:
        """Return so many bytes; fewer at the end of the archive.

        Args:
            size: The number of bytes, which are held in memory.

        Raises:
            Failure: Unsupported for bytes that cannot be decompressed.
        """
        found = bytearray()
        while (missing := size - len(found)) and self._fill():
            found += self._piece[:missing]
            self._piece = self._piece[missing:]
        return bytes(found)

    def read_some(self, most: int) -> memoryview:
        """Return some bytes; none at the end of the archive.

        Args:
            most: Maximum of their number.

        Raises:
            Failure: As `read`.
        """
        self._fill()
        found, self._piece = self._piece[:most], self._piece[most:]
        return found

    def _fill(self) -> bool:
        while not self._piece:
            piece = next(self._pieces, None)
            if piece is None:
                return False
            self._piece = memoryview(piece)
        return True


def build_failure(place: str, problem: str) -> Failure:
    """Return the failure of an archive that cannot be read.

    Args:
        place: Which archive it is.
        problem: What is wrong with it.
    """
    return Failure(Reason.UNSUPPORTED, f"{place} {problem}. Pack the model as a tar file anew, and upload it.")


def _decompress(file: BinaryIO, place: str) -> Iterator[bytes]:
    data = file.read(CHUNK)
    for magic, name in _REFUSED.items():
        if data.startswith(magic):
            raise build_failure(place, f"is compressed with {name}; the agent reads tar files, plain, of gzip or zstd")
    if _is_gzip(data):
        yield from _read_frames(file, data, place, _Gzip, _is_gzip)
    elif _is_zstd(data):
        yield from _read_frames(file, data, place, _open_zstd, _is_zstd)
    else:
        while data:
            yield data
            data = file.read(CHUNK)


def _is_gzip(data: bytes) -> bool:
    return data.startswith(_GZIP)


def _is_zstd(data: bytes) -> bool:
    return data.startswith(_ZSTD) or (data[1:4] == _ZSTD_SKIPPABLE and data[0] >> 4 == 5)


def _read_frames(
    file: BinaryIO, data: bytes, place: str, open_frame: Callable[[], _Decompressor], is_frame: Callable[[bytes], bool]
) -> Iterator[bytes]:
    """Yield the bytes of frames, one after the other, as parallel compressors and seekable formats write them."""
    while data:
        if not is_frame(data):
            raise build_failure(place, "has other data after its compressed data")
        frame = open_frame()
        while not frame.eof:
            if frame.needs_input and not data:
                data = file.read(CHUNK)
            try:
                piece = frame.decompress(data, CHUNK)
            except (zlib.error, zstd.ZstdError) as error:
                raise build_failure(place, f"cannot be decompressed ({error})") from None
            if not (piece or data or frame.eof) and frame.needs_input:
                raise build_failure(place, "ends within its compressed data")
            data = b""
            yield piece
        data = frame.unused_data
        if len(data) < _MAGIC_BYTES:
            data += file.read(CHUNK)
