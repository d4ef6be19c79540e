"""The statement in a signature: the files that are signed, with their digests.

Sources: https://github.com/in-toto/attestation/tree/main/spec/v1 and the predicate
https://model_signing/signature/v1.0 of https://github.com/sigstore/model-transparency.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Final

from pydantic import Field

from conch_agent.signatures.bundle import Parsed, build_invalid, parse_part

_STATEMENT: Final = "https://in-toto.io/Statement/v1"
_PREDICATE: Final = "https://model_signing/signature/v1.0"
_SHA256: Final = "sha256"

_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Digest(Parsed):
    sha256: _Sha256


class _Subject(Parsed):
    digest: _Digest


class _Resource(Parsed):
    name: Annotated[str, Field(min_length=1)]
    algorithm: str
    digest: str


class _Serialization(Parsed):
    method: str
    hash_type: Annotated[str, Field(alias="hash_type")]
    ignore_paths: Annotated[list[str], Field(alias="ignore_paths", default_factory=list)]


class _Predicate(Parsed):
    serialization: _Serialization
    resources: list[_Resource]


class _Kind(Parsed):
    type: Annotated[str, Field(alias="_type")]
    predicate_type: str


class _Statement(Parsed):
    subject: Annotated[list[_Subject], Field(min_length=1, max_length=1)]
    predicate: _Predicate


@dataclass(frozen=True)
class SignedFiles:
    """The files that are signed.

    Attributes:
        sha256: SHA-256 of each file in hexadecimal, by its path below the folder.
        ignored: Files and folders that the signer left out.
    """

    sha256: Mapping[str, str]
    ignored: frozenset[PurePosixPath]

    def is_ignored(self, path: PurePosixPath) -> bool:
        """Return True for a file that the signer left out, itself or with one of its folders.

        Args:
            path: Path of the file below the folder.
        """
        return str(path) not in self.sha256 and not self.ignored.isdisjoint((path, *path.parents))


def parse_statement(payload: bytes, name: str) -> SignedFiles:
    """Return the files of a statement, whose signature is verified.

    Args:
        payload: The statement.
        name: The storageUri and the path of the signature, with which messages begin.

    Raises:
        Failure: InvalidSignature.
    """
    kind = parse_part(_Kind, payload, name, "a signature of a model")
    if (kind.type, kind.predicate_type) != (_STATEMENT, _PREDICATE):
        raise build_invalid(name, f"signs a {kind.predicate_type[:100]!r}, and {_PREDICATE!r} is expected")
    statement = parse_part(_Statement, payload, name, "a signature of a model")
    predicate = statement.predicate
    serialization, resources = predicate.serialization, predicate.resources
    algorithms = {serialization.hash_type, *(resource.algorithm for resource in resources)}
    if serialization.method != "files" or algorithms != {_SHA256}:
        found = f"{serialization.method[:50]!r} with {', '.join(sorted(each[:50] for each in algorithms))}"
        raise build_invalid(name, f"has digests of {found}, and SHA-256 of whole files is expected")
    files = {_normalize(resource.name): resource.digest for resource in resources}
    if len(files) != len(resources):
        raise build_invalid(name, "has two digests of one file")
    if _compute_root(files.values()) != statement.subject[0].digest.sha256:
        raise build_invalid(name, "has a digest of its files that is not that of their digests")
    return SignedFiles(files, frozenset(map(PurePosixPath, serialization.ignore_paths)))


def _normalize(name: str) -> str:
    return str(PurePosixPath(name))


def _compute_root(digests: Iterable[str]) -> str | None:
    """Return the digest over digests in their order; None: one of them is none."""
    try:
        return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()
    except ValueError:
        return None
