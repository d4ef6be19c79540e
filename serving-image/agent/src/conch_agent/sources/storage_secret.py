"""The storage Secret, which the kubelet mounts with one file a key. Its values are text.

The modules of the schemes parse the values.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from conch_agent.reasons import Failure, Reason
from conch_contract.scheme import SecretKey


def read_secret(folder: Path, keys: Iterable[SecretKey]) -> dict[str, str]:
    """Return the mounted Secret's values that are text, without leading and trailing blanks.

    Without storage.secretRef there is no folder. If its Secret is missing, the folder is empty. Files that begin with
    two dots are those of the kubelet: no key does.

    Args:
        folder: The folder in which the Secret is mounted.
        keys: The keys that the scheme of storageUri takes.

    Raises:
        Failure: SecretMissing: without the credentials also a public store is not read. InvalidSecret: the value of one
            of the keys cannot be read. Other keys may have any value.
    """
    known = {key.name: key for key in keys}
    if not folder.is_dir():
        return {}
    files = [file for file in folder.iterdir() if not file.name.startswith("..") and file.is_file()]
    if not files:
        credentials = ", ".join(name for name, key in known.items() if key.is_credential)
        message = (
            "The Secret that storage.secretRef names does not exist, or is empty. Create it in the service's "
            f"namespace, with {credentials} and what else the store needs."
        )
        raise Failure(Reason.SECRET_MISSING, message)
    values: dict[str, str] = {}
    for file in files:
        try:
            values[file.name] = file.read_bytes().decode().strip()
        except UnicodeDecodeError as error:
            if file.name in known:
                raise build_invalid_secret(
                    file.name,
                    f"is not text: byte {error.start} is not UTF-8",
                    "Write the value as text under stringData, or once in base64 under data",
                ) from None
        except OSError as error:
            if file.name in known:
                raise build_invalid_secret(
                    file.name, f"cannot be read: {error.strerror}", "Make it readable for uid 1000"
                ) from error
    return values


def build_invalid_secret(key: str, what: str, remedy: str) -> Failure:
    """Return the failure of a key.

    Args:
        key: The key.
        what: The problem, which continues a sentence that begins with the key.
        remedy: The remedy, a sentence without its full stop.
    """
    return Failure(Reason.INVALID_SECRET, f"{key} in the storage Secret {what}. {remedy}.")
