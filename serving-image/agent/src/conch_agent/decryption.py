"""The decryption of a model's files after all checks of what was fetched, and before any of it is laid out.

Digest and signature are those of the encrypted files: they are verified without a key, and nothing is decrypted that
is not signed. What is decrypted is on the pod's own volume alone, and never in the cache, which outlives pods.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

from conch_agent.age import AgeError, Decryption, Key, NoKeyError, parse_keys
from conch_agent.disk import check_space
from conch_agent.fetch import translate_disk_errors
from conch_agent.folders import delete_tree
from conch_agent.reasons import Failure, Reason
from conch_agent.settings import Settings
from conch_agent.sources.base import Entry, Listing, build_listing, parse_path
from conch_agent.sources.local import LocalSource
from conch_agent.threads import run_in_thread
from conch_contract.decryption import ENCRYPTED_SUFFIX
from conch_contract.manifest import ModelSource
from conch_contract.sentences import join_some
from conch_contract.verification import SIGNATURE_FILE

_ENCRYPT: Final = "Encrypt the folder as a whole (kubectl conch model encrypt), and upload it again"


class KeySource(Protocol):
    """A source of age identities, such as a Secret, or a service that unwraps them (KMS)."""

    def read_keys(self) -> tuple[Key, ...]:
        """Return the identities. It runs in a thread.

        Raises:
            Failure: KeyMissing, InvalidKey.
        """


@dataclass(frozen=True)
class SecretKeys:
    """The identities of a Secret: each of its keys is a file of `age-keygen`.

    Attributes:
        mounted: The folder in which Secrets of identities are mounted by name.
        name: Name of the Secret.
    """

    mounted: Path
    name: str

    def read_keys(self) -> tuple[Key, ...]:
        """Return the identities of all keys, as in KeySource."""
        files = sorted(file for file in (self.mounted / self.name).glob("*") if file.is_file() and file.name[0] != ".")
        if not files:
            message = (
                f"The Secret {self.name!r} that storage.decrypt.secretRef names does not exist, or is empty. Create it"
                f" in the service's namespace: kubectl create secret generic {self.name} --from-file=key.txt, with the"
                " file of age-keygen."
            )
            raise Failure(Reason.KEY_MISSING, message)
        return tuple(key for file in files for key in self._read(file))

    def _read(self, file: Path) -> tuple[Key, ...]:
        try:
            return parse_keys(file.read_text(errors="replace"))
        except ValueError as error:
            message = (
                f"{file.name} of the Secret {self.name!r} {error}; the file of age-keygen is expected. Create the"
                " Secret again from that file."
            )
            raise Failure(Reason.INVALID_KEY, message) from None


def find_home(source: ModelSource, settings: Settings) -> Path:
    """Return the folder with a model's files as Triton reads them, and its folder SERVED.

    Args:
        source: The model in the manifest.
        settings: The agent's settings.
    """
    return (settings.decrypted if source.decrypt else settings.downloads) / source.name


def plan_names(listing: Listing, source: ModelSource) -> Mapping[PurePosixPath, PurePosixPath]:
    """Return the paths of the encrypted files by the paths that they have after decryption.

    Args:
        listing: The files that have passed the checks of the listing.
        source: The model in the manifest, which has keys.

    Raises:
        Failure: NotEncrypted for a file without the suffix; UnsafePath for a path that no file can have.
    """
    uri, paths = source.storage_uri, [item.path for item in listing.items if str(item.path) != SIGNATURE_FILE]
    if plain := sorted(str(path) for path in paths if path.suffix != ENCRYPTED_SUFFIX):
        message = (
            f"{uri} has files that are not encrypted, and storage.decrypt is set: {join_some(plain)}. Nothing of it is"
            f" served. {_ENCRYPT}; or remove storage.decrypt."
        )
        raise Failure(Reason.NOT_ENCRYPTED, message)
    names = {parse_path(str(path).removesuffix(ENCRYPTED_SUFFIX), uri): path for path in paths}
    build_listing([Entry(str(name), 1, "", "") for name in names], uri)  # refuses a file and a folder of one name
    return names


def refuse_encrypted(listing: Listing, source: ModelSource) -> None:
    """Refuse encrypted files of a model without keys.

    Args:
        listing: The files that have passed the checks of the listing.
        source: The model in the manifest, which has no keys.

    Raises:
        Failure: Encrypted.
    """
    paths = [item.path for item in listing.items if str(item.path) != SIGNATURE_FILE]
    if paths and all(path.suffix == ENCRYPTED_SUFFIX for path in paths):
        message = (
            f"{source.storage_uri} has encrypted files ({join_some(map(str, paths))}), and storage.decrypt is not set."
            " Set storage.decrypt.secretRef to a Secret with the age identity."
        )
        raise Failure(Reason.ENCRYPTED, message)


@dataclass(frozen=True)
class Decrypter:
    """Decrypts the files of a model.

    Attributes:
        source: The model in the manifest.
        names: The paths of the encrypted files by those of the decrypted ones.
        keys: The identities.
        home: The model's folder on the pod's own volume.
    """

    source: ModelSource
    names: Mapping[PurePosixPath, PurePosixPath]
    keys: tuple[Key, ...]
    home: Path

    async def run(self, encrypted: Path) -> tuple[LocalSource, Listing]:
        """Decrypt all files; return their source, and its files. After a failure there are none.

        Args:
            encrypted: The folder of the encrypted files, which have passed all checks.

        Raises:
            Failure: DecryptionFailed, DiskFull.
        """
        uri = self.source.storage_uri
        with translate_disk_errors(uri, None):
            await run_in_thread(self._prepare, encrypted)
            try:
                for name, path in self.names.items():
                    await self._decrypt(encrypted / path, name)
            except BaseException:
                await run_in_thread(self.clear)
                raise
        decrypted = LocalSource(uri, self.folder, self.folder)
        return decrypted, await decrypted.list_files()

    def clear(self) -> None:
        """Delete the files; a model that is laid out has links of its own."""
        delete_tree(self.folder)

    @property
    def folder(self) -> Path:
        """The folder of the decrypted files."""
        return self.home / "files"

    def _prepare(self, encrypted: Path) -> None:
        self.clear()
        for name in self.names:
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        needed = sum((encrypted / path).stat().st_size for path in self.names.values())
        check_space(f"{self.source.storage_uri} needs {needed} more bytes to be decrypted", needed, self.folder)

    async def _decrypt(self, file: Path, name: PurePosixPath) -> None:
        decryption = Decryption(file, self.folder / name)
        running = asyncio.ensure_future(run_in_thread(decryption.run, self.keys))
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            decryption.stop()
            await asyncio.wait([running])
            raise
        except NoKeyError:
            known = join_some(key.recipient for key in self.keys)
            problem = f"is encrypted for other keys than those of storage.decrypt, whose recipients are {known}"
            remedy = "Encrypt the folder for one of these, or add the right identity to the Secret"
            raise self._build_failed(name, problem, remedy) from None
        except AgeError as error:
            raise self._build_failed(name, str(error), _ENCRYPT) from None

    def _build_failed(self, name: PurePosixPath, problem: str, remedy: str) -> Failure:
        path = self.names[name]
        message = f"{self.source.storage_uri}: {path} {problem}. Nothing of it is served. {remedy}."
        return Failure(Reason.DECRYPTION_FAILED, message)


async def open_decrypter(
    listing: Listing, source: ModelSource, settings: Settings, home: Path | None = None
) -> Decrypter | None:
    """Return the decrypter of a model's files; None: they are not encrypted. Keys are read before files are fetched.

    Args:
        listing: The files that have passed the checks of the listing.
        source: The model in the manifest.
        settings: The agent's settings.
        home: The folder in which they are decrypted; None: that of the model in a serving pod.

    Raises:
        Failure: Encrypted, NotEncrypted, UnsafePath, KeyMissing, InvalidKey.
    """
    if source.decrypt is None:
        refuse_encrypted(listing, source)
        return None
    keys: KeySource = SecretKeys(settings.decryption, source.decrypt.secret)
    names = plan_names(listing, source)
    return Decrypter(source, names, await run_in_thread(keys.read_keys), home or find_home(source, settings))
