"""The bytes of pieces on the disk of this pod: in parts, in complete files, and in files of one piece for other pods.

While a part exists, its record is that of the part; afterwards it is that of the complete file. So the part is read
first, and the record again after the read: meanwhile the next content may have begun.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from conch_agent.download import find_part
from conch_agent.peers.piece import Piece
from conch_agent.reasons import Failure
from conch_agent.record import read_record
from conch_agent.sources.base import parse_path


def find_pieces(folder: Path) -> Path:
    """Return the folder of the pieces that a pod keeps for others during the fetch of a model.

    Args:
        folder: The download folder of the model.
    """
    return folder / "pieces"


def find_kept(folder: Path, piece: Piece) -> Path:
    """Return the file of a piece that is kept for other pods.

    Args:
        folder: The download folder of the model.
        piece: The piece.
    """
    return find_pieces(folder) / hashlib.blake2b(piece.target.encode(), digest_size=16).hexdigest()


def has_piece(folders: Iterable[Path], piece: Piece) -> bool:
    """Return True if a piece is on the disk.

    Args:
        folders: Download folders of models that have the file.
        piece: The piece.
    """
    return any(file.exists() for folder in folders for file, _ in _find_files(folder, piece))


def read_piece(folders: Iterable[Path], piece: Piece) -> bytes | None:
    """Return the bytes of a piece; None: they are not on the disk.

    Args:
        folders: Download folders of models that have the file.
        piece: The piece.
    """
    for folder in folders:
        for file, start in _find_files(folder, piece):
            with suppress(OSError), file.open("rb", buffering=0) as stream:
                stream.seek(start)
                content = stream.read(piece.end - piece.start)
                is_whole = len(content) == piece.end - piece.start
                if is_whole and (file, start) in _find_files(folder, piece):
                    return content
    return None


def _find_files(folder: Path, piece: Piece) -> Iterator[tuple[Path, int]]:
    """Yield the files that may have the bytes of a piece, with the offset at which they begin there."""
    try:
        path = parse_path(piece.path, "")
    except Failure:
        return
    part = find_part(folder, path)
    record = read_record(part.record)
    if record and (record.tag, record.size) == (piece.mark, piece.size):
        if record.offset >= piece.end:
            yield part.file, piece.start
        if record.done:
            yield folder / "files" / path, piece.start
    yield find_kept(folder, piece), 0
