"""Pieces of files that pods of one service send each other, and how they authenticate.

A piece is a range of a file. The request for one has the MAC of a key that both pods derive from the storage Secret, so
that bytes go only to pods that may read them from the store; the piece has one as well, so that no other pod can send
what is laid out. A MAC of a request includes the address to which it is sent: who gets it cannot forward it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Final, Self
from urllib.parse import parse_qs, urlencode

from conch_agent.sources.base import Buffer
from conch_agent.sources.ranged_reads import RANGE
from conch_contract.names import PIECES_PATH

MAC_SIZE: Final = 32  # bytes
MAC_HEADER: Final = "conch-mac"
NONCE_HEADER: Final = "conch-nonce"
BLOCK: Final = 1024 * 1024  # bytes of a piece that are sent and received at a time
STALL_SECONDS: Final = 5.0  # for each block


@dataclass(frozen=True)
class Piece:
    """A piece of a file.

    Attributes:
        source: Key of the place that has the file, as `sources.build_key`.
        path: Path of the file below the root of the source.
        mark: What identifies its content, as `Item.mark`.
        size: Size of the file in bytes.
        start: The first byte of the piece, a multiple of RANGE.
    """

    source: str
    path: str
    mark: str
    size: int
    start: int

    @property
    def end(self) -> int:
        """The byte after the last."""
        return min(self.size, self.start + RANGE)

    @property
    def target(self) -> str:
        """The target of a request for the piece."""
        query = {"path": self.path, "mark": self.mark, "size": self.size, "start": self.start}
        return f"{PIECES_PATH}/{self.source}?{urlencode(query)}"

    @classmethod
    def parse(cls, target: str) -> Self | None:
        """Return the piece of a request; None: it is that of no piece.

        Args:
            target: The target of the request.

        >>> piece = Piece("5e", "1/model.onnx", '"etag"', 9, 0)
        >>> Piece.parse(piece.target) == piece
        True
        >>> Piece.parse("/pieces/5e?path=a&mark=b&size=-1&start=0") is None
        True
        """
        path, _, query = target.partition("?")
        try:
            fields = {name: value for name, (value,) in parse_qs(query, strict_parsing=True, max_num_fields=4).items()}
            source = path.removeprefix(f"{PIECES_PATH}/")
            piece = cls(source, fields["path"], fields["mark"], int(fields["size"]), int(fields["start"]))
        except (ValueError, KeyError):
            return None
        return piece if 0 <= piece.start < piece.size and piece.start % RANGE == 0 else None


@dataclass(frozen=True)
class PlaceKeys:
    """What pods have in common for a place of a model's files.

    Attributes:
        source: Key of the source, as `sources.build_key`.
        secret: The key of requests and answers, as `derive_key`.
    """

    source: str
    secret: bytes


def derive_key(secret: Mapping[str, str]) -> bytes:
    """Return the key of the pods that have a storage Secret; without one it is no secret.

    Args:
        secret: Its values.
    """
    text = json.dumps(sorted(secret.items())).encode()
    return hashlib.blake2b(text, digest_size=MAC_SIZE, person=b"conch-peers").digest()


def sign_request(key: bytes, piece: Piece, address: str, nonce: str) -> str:
    """Return the MAC of a request, in hexadecimal.

    Args:
        key: The key.
        piece: The piece.
        address: `host:port` to which it is sent.
        nonce: A text that no other request has.
    """
    text = json.dumps([*astuple(piece), address, nonce]).encode()
    return hashlib.blake2b(text, key=key, digest_size=MAC_SIZE, person=b"request").hexdigest()


def sign_content(key: bytes, nonce: str, content: Buffer) -> bytes:
    """Return the MAC of a piece's bytes in the answer to a request.

    Args:
        key: The key.
        nonce: That of the request.
        content: The bytes.
    """
    state = hashlib.blake2b(nonce.encode(), key=key, digest_size=MAC_SIZE, person=b"content")
    state.update(content)
    return state.digest()


def is_equal(mac: str | bytes, other: str | bytes) -> bool:
    """Return True for equal MACs, in a time that does not depend on where they differ.

    Args:
        mac: One MAC.
        other: The other.
    """
    first, second = (each.encode(errors="replace") if isinstance(each, str) else each for each in (mac, other))
    return hmac.compare_digest(first, second)
