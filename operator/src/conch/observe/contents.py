"""The content of a revision: what each of its models was when its first pod was ready, as text for an annotation.

All later pods of the revision serve this content, so that parts of two versions never meet.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from conch.api.names import GROUP
from conch.observe.fields import mapping, text
from conch_contract.object_versions import select_recordable
from conch_contract.parsing import parse_json

LONGEST: Final = 192 * 1024  # bytes of the text; all annotations of an object may have 256 KiB


@dataclass(frozen=True)
class Content:
    """The content of one model.

    Attributes:
        digest: Digest of its files, sha256:<hex>.
        object_versions: Versions of these files in their bucket, by path below storageUri; empty: there are none.
        warmup_digest: Digest of the requests in the warm-up's ConfigMap; empty: it has none.
        source_identity: Identity of the listing of its source, if that is watched; of a repository, its entry has it.
    """

    digest: str
    object_versions: Mapping[str, str] = field(default_factory=dict)
    warmup_digest: str = ""
    source_identity: str = ""

    def to_wire(self) -> dict[str, Any]:
        """Return the fields that a model in the manifest has for it, without empty ones."""
        fields = {
            "digest": self.digest,
            "objectVersions": dict(self.object_versions),
            "warmupDigest": self.warmup_digest,
        }
        return {name: value for name, value in fields.items() if value}


Contents = Mapping[str, Content]
"""The content of each model of a revision, by name; empty: no pod was ready yet."""


def limit_contents(contents: Contents) -> Contents:
    """Return contents without object versions, which only locate them, if their text would be too long.

    Args:
        contents: The contents.
    """
    if len(encode_contents(contents)) <= LONGEST:
        return contents
    return {name: replace(content, object_versions={}) for name, content in contents.items()}


def encode_contents(contents: Contents) -> str:
    """Return contents as compact JSON; empty where there are none.

    Args:
        contents: The contents.

    >>> encode_contents({"m": Content("sha256:1", {}, "")}), encode_contents({})
    ('{"m":{"digest":"sha256:1"}}', '')
    """
    wire = {name: _encode(content) for name, content in sorted(contents.items())}
    return json.dumps(wire, separators=(",", ":")) if wire else ""


def _encode(content: Content) -> dict[str, Any]:
    identity = {"sourceIdentity": content.source_identity} if content.source_identity else {}
    return {**content.to_wire(), **identity}


def decode_contents(value: str) -> Contents:
    """Return the contents of a text of `encode_contents`; empty for any other text.

    Args:
        value: The value of the annotation, which may come from another writer.

    >>> decode_contents('{"m":{"digest":"sha256:1","objectVersions":[]}}')
    {'m': Content(digest='sha256:1', object_versions={}, warmup_digest='', source_identity='')}
    >>> decode_contents("[]"), decode_contents(""), decode_contents('{"m":{}}')
    ({}, {}, {})
    """
    try:
        found = mapping(parse_json(value)) if value else {}
    except ValueError:
        return {}
    return {
        name: Content(
            text(each.get("digest")),
            select_recordable(each.get("objectVersions")),
            text(each.get("warmupDigest")),
            text(each.get("sourceIdentity")),
        )
        for name, each in ((name, mapping(each)) for name, each in found.items())
        if text(each.get("digest"))
    }


def read_old_contents(annotations: Mapping[str, str], model: str) -> Contents:
    """Return the content of a revision of one model in the annotations of Conch 0.1.0; empty: it has none.

    Args:
        annotations: The annotations of the ControllerRevision.
        model: Name of the model.

    >>> read_old_contents({"conch.dev/digest": "sha256:1", "conch.dev/object-versions": "[]"}, "m")
    {'m': Content(digest='sha256:1', object_versions={}, warmup_digest='', source_identity='')}
    """
    digest = annotations.get(f"{GROUP}/digest", "")
    if not digest:
        return {}
    try:
        versions = parse_json(annotations.get(f"{GROUP}/object-versions", "null"))
    except ValueError:
        versions = None
    return {model: Content(digest, select_recordable(versions), annotations.get(f"{GROUP}/warmup-digest", ""))}
