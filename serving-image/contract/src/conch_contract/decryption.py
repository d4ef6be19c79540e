"""The encryption of a model's files, and the keys to decrypt them.

The format is age v1 (https://age-encryption.org/v1): X25519 recipients, and ChaCha20-Poly1305 in chunks of 64 KiB, each
authenticated with its position and whether it is the last. It has a specification, keys that `age-keygen` makes, and a
library of 2 MB (pyrage, of Rust's rage) that streams.
"""

from typing import Final

from conch_contract._base import Wire

ENCRYPTED_SUFFIX: Final = ".age"  # of a file that is encrypted, after its own name


class Decryption(Wire):
    """The decryption of a model's files: all of them are encrypted, but for the signature.

    Attributes:
        secret: Name of the Secret with the age identities, which is mounted at DECRYPTION_DIR/<name>.
    """

    secret: str
