"""The checks of `storage.verify` and of the namespace's policy: whether files are those that are meant, and signed.

Nothing of files that do not pass is laid out, so Triton never reads them. A model that is laid out has passed the
checks of its source: a change of them changes the source's hash, and the files are checked again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final
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
from conch_contract.verification import DIGEST, SIGNATURE, SignaturePolicy

if TYPE_CHECKING:
    from conch_agent.signatures.trust import Trust

_SIGN: Final = "Sign the folder again (model_signing), and upload it as a whole"


@dataclass(frozen=True)
class VerifiedSignature:
    """A signature of a model's files that is verified.

    Attributes:
        check: The check that it is for.
        files: The files that are signed.
        signer: The signer.
    """

    check: str
    files: SignedFiles
    signer: str


@dataclass(frozen=True)
class Checks:
    """The checks of a model's files, all of which they have to pass.

    Attributes:
        uri: The storageUri.
        digest: The digest that they must have; empty: any.
        signatures: Their signatures; empty: they need none.
    """

    uri: str
    digest: str = ""
    signatures: tuple[VerifiedSignature, ...] = ()

    @property
    def signer(self) -> str:
        """The signers; empty: the files need no signature."""
        return "; ".join(dict.fromkeys(signature.signer for signature in self.signatures))

    def select(self, listing: Listing) -> Listing:
        """Return the files for Triton: all, or those that are signed in each of the signatures.

        Args:
            listing: The files of the source.

        Raises:
            Failure: NotSigned: a file is not signed, and the signer has not left it out; or one is missing.
        """
        names = {str(item.path) for item in listing.items}
        left_out: set[PurePosixPath] = set()
        for signed in (signature.files for signature in self.signatures):
            ignored = {item.path for item in listing.items if signed.is_ignored(item.path)}
            unsigned = sorted(names - signed.sha256.keys() - {str(path) for path in ignored})
            missing = sorted(name for name in signed.sha256.keys() - names if not is_excluded_path(name))
            if unsigned:
                raise self._build_not_signed(f"has files that are not signed: {join_some(unsigned)}")
            if missing:
                raise self._build_not_signed(f"lacks files that are signed: {join_some(missing)}")
            left_out |= ignored
        return Listing(tuple(item for item in listing.items if item.path not in left_out)) if left_out else listing

    def verify(self, sha256: Mapping[str, str]) -> tuple[str, ...]:
        """Return the checks that fetched files have passed.

        Args:
            sha256: SHA-256 of each file in hexadecimal, by its path below storageUri.

        Raises:
            Failure: DigestMismatch, NotSigned.
        """
        self.verify_signed(sha256)
        if self.digest:
            self._verify_digest(sha256)
        return (*([DIGEST] if self.digest else []), *(signature.check for signature in self.signatures))

    def verify_signed(self, sha256: Mapping[str, str]) -> None:
        """Refuse files with other contents than the signed ones.

        Args:
            sha256: SHA-256 of each of the files in hexadecimal, by its path below storageUri; they may be some of them.

        Raises:
            Failure: NotSigned.
        """
        for signed in (signature.files.sha256 for signature in self.signatures):
            others = sorted(path for path, digest in signed.items() if sha256.get(path, digest) != digest)
            if others:
                raise self._build_not_signed(f"has files with other contents than the signed ones: {join_some(others)}")

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


@dataclass(frozen=True)
class _Requirement:
    """A signature that files have to have.

    Attributes:
        check: Its check in reports.
        path: Its file below storageUri.
        origin: What requires it, for messages.
        remedy: What to do where it has another name, as a sentence.
        read_trust: Returns the trusted keys.
    """

    check: str
    path: str
    origin: str
    remedy: str
    read_trust: Callable[[], Trust]


async def read_checks(
    source: Source, listing: Listing, model: ModelSource, settings: Settings, policy: SignaturePolicy | None
) -> Checks:
    """Return the checks of a model's files. Its signatures are read and verified before the files are fetched.

    The keys of the policy are trusted in addition to the user's: the files need both signatures.

    Args:
        source: The source.
        listing: Its files.
        model: The model in the manifest.
        settings: The agent's settings.
        policy: The signature policy of the namespace; None: there is none.

    Raises:
        Failure: SignatureMissing, InvalidSignature, KeyMissing, InvalidKey, or a failure of the source.
    """
    requirements = _list_requirements(model, settings, policy)
    own = frozenset(PurePosixPath(requirement.path) for requirement in requirements)
    signatures: list[VerifiedSignature] = []
    for requirement in requirements:
        content = await _read_signature(source, listing, requirement)
        found = await run_in_thread(_verify_signature, content, source.uri, requirement)
        ignored = found.files.ignored | own  # a signature does not sign the others
        signatures.append(replace(found, files=replace(found.files, ignored=ignored)))
    return Checks(model.storage_uri, model.verify.digest if model.verify else "", tuple(signatures))


def _list_requirements(
    model: ModelSource, settings: Settings, policy: SignaturePolicy | None
) -> tuple[_Requirement, ...]:
    """Return the signatures that a model's files have to have: the user's, then the policy's."""
    requirements: list[_Requirement] = []
    if model.verify and (signature := model.verify.signature):
        requirements.append(
            _Requirement(
                SIGNATURE,
                signature.path,
                "storage.verify.signature",
                "If it has another name, set storage.verify.signature.path.",
                lambda: _read_mounted(settings, signature.config_map),
            )
        )
    if policy:
        requirements.append(
            _Requirement(
                policy.check,
                policy.path,
                f"the signature policy {policy.name!r} of the namespace",
                "The policy is that of the namespace's administrator.",
                lambda: _parse_policy(policy),
            )
        )
    return tuple(requirements)


# Imported for models with a signature alone: it takes 17 MB.
def _read_mounted(settings: Settings, config_map: str) -> Trust:
    from conch_agent.signatures.trust import read_trust  # noqa: PLC0415

    return read_trust(settings.trust, config_map)


def _parse_policy(policy: SignaturePolicy) -> Trust:
    from conch_agent.signatures.trust import parse_trust  # noqa: PLC0415

    return parse_trust(policy.trusted, f"the signature policy {policy.name!r}")


def _verify_signature(content: bytes, uri: str, requirement: _Requirement) -> VerifiedSignature:
    from conch_agent.signatures.trust import verify_envelope  # noqa: PLC0415

    name = f"{uri}: {requirement.path}"
    trust = requirement.read_trust()
    envelope = parse_bundle(content, name)
    signer = verify_envelope(envelope, trust, name, datetime.now(UTC))
    return VerifiedSignature(requirement.check, parse_statement(envelope.payload, name), signer)


async def _read_signature(source: Source, listing: Listing, requirement: _Requirement) -> bytes:
    item = next((item for item in listing.items if str(item.path) == requirement.path), None)
    if item is None:
        message = (
            f"{source.uri} has no file {requirement.path}, and {requirement.origin} needs a signature. Sign the"
            " folder (model_signing), and upload it with its signature; a storageUri that is one file has none."
            f" {requirement.remedy}"
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
        raise build_invalid(f"{source.uri}: {requirement.path}", f"has over {LONGEST} bytes, and is no signature")
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
