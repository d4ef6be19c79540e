"""Files in the format age v1, which are decrypted as a stream.

Source: https://age-encryption.org/v1. The library pyrage, which binds Rust's rage, is imported for encrypted models
alone.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

if TYPE_CHECKING:
    from pyrage.x25519 import Identity

INTRODUCTION: Final = b"age-encryption.org/v1\n"
ARMOR: Final = b"-----BEGIN AGE ENCRYPTED FILE-----"
_END: Final = b"\n--- "  # before the authentication code of the header
_LONGEST_HEADER: Final = 64 * 1024  # bytes: some 600 recipients; the library reads a header of any length into memory
_BUFFER: Final = 1024 * 1024
_IDENTITY: Final = "AGE-SECRET-KEY-"


class AgeError(Exception):
    """A file that cannot be decrypted. The text continues a sentence that begins with the file's name."""


class NoKeyError(AgeError):
    """A file for which no identity is one of its recipients."""


@dataclass(frozen=True)
class Key:
    """An age identity.

    Attributes:
        identity: The identity, with which files are decrypted.
        recipient: Its public recipient, for which files are encrypted.
    """

    identity: Identity
    recipient: str


def parse_keys(text: str) -> tuple[Key, ...]:
    """Return the identities of a file as `age-keygen` writes it: one a line, beside empty lines and comments.

    Args:
        text: The text of the file.

    Raises:
        ValueError: A line is no X25519 identity, or there is none. The message continues a sentence that begins with
            the file's name, and has no part of the line.
    """
    from pyrage import IdentityError, x25519  # noqa: PLC0415

    keys = []
    for number, line in enumerate(map(str.strip, text.splitlines()), start=1):
        if not line or line.startswith("#"):
            continue
        try:
            identity = x25519.Identity.from_str(line)
        except IdentityError:
            kind = "an incomplete or mistyped identity" if line.startswith(_IDENTITY) else f"no {_IDENTITY}1..."
            raise ValueError(f"has in line {number} {kind}") from None
        keys.append(Key(identity, str(identity.to_public())))
    if not keys:
        raise ValueError("has no identity")
    return tuple(keys)


class Decryption:
    """The decryption of one file, which another thread can stop."""

    def __init__(self, source: Path, target: Path) -> None:
        """Create the decryption.

        Args:
            source: The encrypted file.
            target: The file to write.
        """
        self._source = source
        self._target = target
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Have `run` end with an OSError."""
        self._stopped.set()

    def run(self, keys: Iterable[Key]) -> None:
        """Write the plaintext of the file. After an error what is written of it is incomplete, and is not to be used.

        Args:
            keys: The identities, one of which is a recipient.

        Raises:
            NoKeyError: None is.
            AgeError: The file is in another format, or was changed, reordered or truncated.
            OSError: A file cannot be read or written.
        """
        from pyrage import DecryptError, decrypt_io  # noqa: PLC0415

        with self._source.open("rb", buffering=_BUFFER) as source, self._target.open("xb", buffering=0) as stream:
            check_header(source)
            target = _Target(stream, self._stopped)
            try:
                decrypt_io(source, target, [key.identity for key in keys])
            except DecryptError as error:
                # The library has no other sign of it.
                if "No matching keys" in str(error):
                    raise NoKeyError("is encrypted for other keys") from None
                raise AgeError(f"has a header that is not authentic ({error})") from None
            except OSError as error:
                if error.errno is not None:
                    raise
                detail = f"is authentic in its first {target.written} bytes only ({error})"
                raise AgeError(f"was changed or truncated after it was encrypted: it {detail}") from None


def check_header(source: BinaryIO) -> None:
    """Refuse a file that is not of age v1, or whose header is too long for memory.

    Args:
        source: The file, at its beginning, where it is after the call, too.

    Raises:
        AgeError: It is refused.
    """
    beginning = source.read(_LONGEST_HEADER)
    source.seek(0)
    if beginning.lstrip().startswith(ARMOR):
        raise AgeError("is in age's text format: encrypt it without --armor")
    if not beginning.startswith(INTRODUCTION):
        raise AgeError("is not encrypted with age")
    if _END not in beginning:
        raise AgeError(f"has no end of its header in its first {_LONGEST_HEADER} bytes: it is truncated or hostile")


class _Target:
    """The stream to which the library writes, which counts its bytes and can be stopped."""

    def __init__(self, stream: BinaryIO, stopped: threading.Event) -> None:
        self.written = 0
        self._stream = stream
        self._stopped = stopped

    def write(self, chunk: Any) -> int:
        """Write some bytes; return how many.

        Args:
            chunk: The bytes.
        """
        if self._stopped.is_set():
            # No InterruptedError: after that Rust repeats the write.
            raise OSError(errno.ECANCELED, "the decryption was stopped")
        count = self._stream.write(chunk)
        self.written += count
        return count

    def flush(self) -> None:
        """Do nothing: the stream has no buffer."""
