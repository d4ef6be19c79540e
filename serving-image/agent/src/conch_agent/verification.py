"""The checks of `storage.verify`: whether files are those that the user means, and signed.

Nothing of files that do not pass is laid out, so Triton never reads them. A model that is laid out has passed the
checks of its source: a change of them changes the source's hash, and the files are checked again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

from conch_agent.reasons import Failure, Reason
from conch_agent.record import compute_digest
from conch_agent.settings import Settings
from conch_agent.signatures.bundle import LONGEST, build_invalid, parse_bundle
from conch_agent.signatures.statement import SignedFiles, parse_statement
from conch_agent.sources.base import Listing, Source
from conch_agent.sources.exclusions import is_excluded_path
from conch_agent.threads import run_in_thread
from conch_contract.manifest import ModelSource
from conch_contract.schemes import find_scheme
from conch_contract.sentences import join_some
from conch_contract.verification import DIGEST, SIGNATURE, Signature

_SIGN: Final = "Sign the folder again (model_signing), and upload it as a whole"


@dataclass(frozen=True)
class Checks:
    """The checks of a model's files.

    Attributes:
        uri: The storageUri.
        digest: The digest that they must have; empty: any.
        signed: The files that are signed; None: they need no signature.
        signer: The signer; empty: they need no signature.
    """

    uri: str
    digest: str = ""
    signed: SignedFiles | None = None
    signer: str = ""

    def select(self, listing: Listing) -> Listing:
        """Return the files for Triton: all, or those that are signed.

        Args:
            listing: The files of the source.

        Raises:
            Failure: NotSigned: a file is not signed, and the signer has not left it out; or one is missing.
        """
        if self.signed is None:
            return listing
        names = {str(item.path) for item in listing.items}
        left_out = {item.path for item in listing.items if self.signed.is_ignored(item.path)}
        unsigned = sorted(names - self.signed.sha256.keys() - {str(path) for path in left_out})
        missing = sorted(name for name in self.signed.sha256.keys() - names if not is_excluded_path(name))
        if unsigned:
            raise self._build_not_signed(f"has files that are not signed: {join_some(unsigned)}")
        if missing:
            raise self._build_not_signed(f"lacks files that are signed: {join_some(missing)}")
        return Listing(tuple(item for item in listing.items if item.path not in left_out))

    def verify(self, sha256: Mapping[str, str]) -> tuple[str, ...]:
        """Return the checks that fetched files have passed.

        Args:
            sha256: SHA-256 of each file in hexadecimal, by its path below storageUri.

        Raises:
            Failure: DigestMismatch, NotSigned.
        """
        if self.signed is not None:
            others = sorted(path for path, digest in self.signed.sha256.items() if sha256.get(path, digest) != digest)
            if others:
                raise self._build_not_signed(f"has files with other contents than the signed ones: {join_some(others)}")
        if self.digest:
            self._verify_digest(sha256)
        return tuple(name for name, check in ((DIGEST, self.digest), (SIGNATURE, self.signed)) if check)

    def _verify_digest(self, sha256: Mapping[str, str]) -> None:
        only = _find_only_file(self.uri, sha256)
        actual = [f"sha256:{only}"] if only else []
        actual.append(compute_digest(dict(sha256)))
        if self.digest not in actual:
            message = (
                f"{self.uri} has the digest {actual[0]}, and storage.verify.digest is {self.digest}. Nothing of it is"
                " served. Upload the files that are meant; or, if these are, set storage.verify.digest to their digest."
            )
            raise Failure(Reason.DIGEST_MISMATCH, message)

    def _build_not_signed(self, problem: str) -> Failure:
        return Failure(Reason.NOT_SIGNED, f"{self.uri} {problem}. Nothing of it is served. {_SIGN}.")


async def read_checks(source: Source, listing: Listing, model: ModelSource, settings: Settings) -> Checks:
    """Return the checks of a model's files. Its signature is read and verified before the files are fetched.

    Args:
        source: The source.
        listing: Its files.
        model: The model in the manifest.
        settings: The agent's settings.

    Raises:
        Failure: SignatureMissing, InvalidSignature, KeyMissing, InvalidKey, or a failure of the source.
    """
    if model.verify is None:
        return Checks(model.storage_uri)
    if model.verify.signature is None:
        return Checks(model.storage_uri, model.verify.digest)
    content = await _read_signature(source, listing, model.verify.signature)
    signed, signer = await run_in_thread(_verify_signature, content, source.uri, model.verify.signature, settings)
    return Checks(model.storage_uri, model.verify.digest, signed, signer)


def _verify_signature(content: bytes, uri: str, signature: Signature, settings: Settings) -> tuple[SignedFiles, str]:
    """Return the files that are signed, and the signer."""
    # Imported for models with a signature alone: it takes 17 MB.
    from conch_agent.signatures.trust import read_trust, verify_envelope  # noqa: PLC0415

    name = f"{uri}: {signature.path}"
    trust = read_trust(settings.trust, signature.config_map)
    envelope = parse_bundle(content, name)
    signer = verify_envelope(envelope, trust, name, datetime.now(UTC))
    signed = parse_statement(envelope.payload, name)
    own = PurePosixPath(signature.path)
    return SignedFiles(signed.sha256, signed.ignored | {own}), signer


async def _read_signature(source: Source, listing: Listing, signature: Signature) -> bytes:
    item = next((item for item in listing.items if str(item.path) == signature.path), None)
    if item is None:
        message = (
            f"{source.uri} has no file {signature.path}, and storage.verify.signature needs a signature. Sign the"
            " folder (model_signing), and upload it with its signature; a storageUri that is one file has none. If"
            " it has another name, set storage.verify.signature.path."
        )
        raise Failure(Reason.SIGNATURE_MISSING, message)
    content = bytearray()
    if (item.size or 0) <= LONGEST:
        async with aclosing(source.read(item, 0)) as chunks:
            async for chunk in chunks:
                content += chunk
                if len(content) > LONGEST:
                    break
    if (item.size or 0) > LONGEST or len(content) > LONGEST:
        raise build_invalid(f"{source.uri}: {signature.path}", f"has over {LONGEST} bytes, and is no signature")
    return bytes(content)


def _find_only_file(uri: str, sha256: Mapping[str, str]) -> str:
    """Return the SHA-256 of the file that a URI names; empty: it names a folder.

    The name of the file is then that of the URI, so its content is all that a store can choose.
    """
    if len(sha256) != 1:
        return ""
    [(path, digest)] = sha256.items()
    scheme = find_scheme(uri)
    is_url = scheme is not None and scheme.is_one_file  # may have a query, and may be an archive with other names
    name = PurePosixPath(unquote(urlsplit(uri).path)).name if is_url else uri.rpartition("/")[2]
    return digest if path == name else ""


def check_config(uri: str, path: PurePosixPath | None, text: str | None, sha256: Mapping[str, str]) -> None:
    """Refuse a config.pbtxt that is not the fetched one: it is read before the fetch, and a store may return another.

    Args:
        uri: The storageUri, with which the message begins.
        path: Path of config.pbtxt below storageUri; None: there is none.
        text: Its content as it was read; None: there is none.
        sha256: SHA-256 of each fetched file in hexadecimal, by its path below storageUri.

    Raises:
        Failure: SourceChanged.
    """
    if path is None or text is None:
        return
    if hashlib.sha256(text.encode()).hexdigest() != sha256.get(str(path)):
        message = f"{uri}: {path} changed while the files were fetched; the agent fetches them again."
        raise Failure(Reason.CHANGED, message)
