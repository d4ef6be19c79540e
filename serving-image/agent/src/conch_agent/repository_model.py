"""A model in Triton's repository, and the marker file that states what its folder has."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from conch_agent import layout
from conch_agent.effective_config import WrittenValues
from conch_agent.reasons import Failure, Reason
from conch_contract.manifest import ModelSource
from conch_contract.parsing import parse_json
from conch_contract.report import Origin

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")


@dataclass(frozen=True)
class RepositoryModel:
    """A model in Triton's repository, which is also the marker file of its folder.

    Attributes:
        source_hash: Hash of the model's source in the manifest.
        identity: Hash of the source's listing.
        digest: Digest of the files.
        size: Size of the files in bytes.
        versions: The versions that Triton serves.
        seconds: Duration of the preparation.
        boot: Id of the node's boot. After another boot the files are hashed again, since a crash may damage them.
        overrides: The fields of config.pbtxt that have another value in Triton, as text.
        file_name: The model's name in config.pbtxt, if it is another one; else empty.
        callees: The models that this one calls.
        makes_calls: True if it may call models whose names its program does not show.
        steps: Those of them without which Triton does not load it: the steps of an ensemble.
        sequences: True if the model has sequence_batching: all requests of a sequence need the same Triton.
        object_versions: Versions of the files in their bucket, by path below storageUri.
        verified: The checks that the files have passed.
        policy: The version of the namespace's signature policy that they have passed; empty: none.
        signer: The signer whose signature is verified; empty: none.
        response_cache: True if its configuration has Triton cache its answers.
        written: The values of its configuration in the repository by field, by origin.
        cache_problem: Why the cache does not have the files, as a sentence without a full stop; empty: it has, or there
            is none.
        origin: Origin of the files.
        uri: The storageUri or mirror that delivered the files.
        detour: Why they are not from storageUri, as sentences; empty: they are, or they needed no request.
        source_identity: Hash of the listing of storageUri; empty: the files are from a mirror, or from the cache, which
            needed no request.
        fetched: The time in ISO 8601 at which the cache got them, if the source was away; else empty.
    """

    source_hash: str
    identity: str
    digest: str
    size: int
    versions: tuple[int, ...]
    seconds: float
    boot: str
    overrides: tuple[str, ...] = ()
    file_name: str = ""
    callees: tuple[str, ...] = ()
    makes_calls: bool = False
    steps: tuple[str, ...] = ()
    sequences: bool = False
    object_versions: dict[str, str] = field(default_factory=dict)
    verified: tuple[str, ...] = ()
    policy: str = ""
    signer: str = ""
    response_cache: bool = False
    written: WrittenValues = field(default_factory=dict)
    cache_problem: str = ""
    origin: Origin = Origin.STORAGE
    uri: str = ""
    detour: str = ""
    source_identity: str = ""
    fetched: str = ""

    @property
    def content(self) -> str:
        """Identifier of configuration and files. After its change Triton has to reload the model."""
        return compute_content(self.source_hash, self.digest)


def read_marker(target: Path) -> RepositoryModel | None:
    """Return the model that is laid out in a folder; None: there is none.

    Args:
        target: The folder.
    """
    try:
        raw: dict[str, Any] = parse_json((target / layout.MARKER).read_text())
        values: dict[str, Any] = {key: tuple(item) if isinstance(item, list) else item for key, item in raw.items()}
        return RepositoryModel(**values)
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def compute_content(source_hash: str, digest: str) -> str:
    """Return the identifier of configuration and files of a model.

    Args:
        source_hash: Hash of its source in the manifest.
        digest: Digest of its files.
    """
    return hashlib.sha256(f"{source_hash} {digest}".encode()).hexdigest()


def check_name(source: ModelSource) -> str:
    """Return the model's name, if it can be the name of a folder.

    Args:
        source: The model in the manifest.

    Raises:
        Failure: UnsafePath.
    """
    if not _NAME.fullmatch(source.name):
        message = (
            f"The model name {source.name[:200]!r} cannot be a folder: use letters, digits, '.', '_' and '-', a letter"
            " or a digit first. A folder of a repository that is no model to serve is left out if its name begins with"
            " a dot."
        )
        raise Failure(Reason.UNSAFE_PATH, message)
    return source.name
