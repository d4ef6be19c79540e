"""Manifests and indexes of a registry, as types (OCI image specification 1.1, and their older forms by Docker)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import BaseModel, FailFast, Field, TypeAdapter, ValidationError

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.answer import describe_invalid, to_one_line
from conch_contract.sentences import join_some

_MANIFESTS: Final = frozenset(
    {"application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"}
)
_INDEXES: Final = frozenset(
    {"application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"}
)
ACCEPT: Final = ", ".join(sorted(_MANIFESTS | _INDEXES))
MOST_LAYERS: Final = 10_000
_MOST_MANIFESTS: Final = 1_000

_MediaType = Annotated[str, Field(max_length=255)]
_Annotations = Annotated[Mapping[str, str] | None, Field(max_length=1_000)]


class Platform(BaseModel):
    """A platform, in Go's words: `linux` and `amd64`."""

    os: str = ""
    architecture: str = ""


class Descriptor(BaseModel):
    """A blob or a manifest: its digest, its size in bytes and its media type."""

    mediaType: _MediaType  # noqa: N815  the specification's
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0, lt=2**63, strict=True)]
    annotations: _Annotations = None
    platform: Platform | None = None

    def annotate(self, name: str) -> str:
        """Return an annotation; empty: there is none.

        Args:
            name: Its name.
        """
        return (self.annotations or {}).get(name, "")


class Manifest(BaseModel):
    """An artifact or image: its layers, in their order."""

    schemaVersion: Literal[2]  # noqa: N815  the specification's
    mediaType: _MediaType = ""  # noqa: N815  the specification's
    layers: Annotated[list[Descriptor], Field(max_length=MOST_LAYERS), FailFast()]
    manifests: None = None


class Index(BaseModel):
    """Manifests, such as one for each platform."""

    schemaVersion: Literal[2]  # noqa: N815  the specification's
    mediaType: _MediaType = ""  # noqa: N815  the specification's
    manifests: Annotated[list[Descriptor], Field(max_length=_MOST_MANIFESTS), FailFast()]
    layers: None = None


_FORMS: Final[Mapping[str, TypeAdapter[Manifest] | TypeAdapter[Index]]] = {
    **dict.fromkeys(_MANIFESTS, TypeAdapter(Manifest)),
    **dict.fromkeys(_INDEXES, TypeAdapter(Index)),
}


def parse_document(body: bytes, media_type: str, uri: str) -> Manifest | Index:
    """Return the manifest or index of an answer.

    Args:
        body: The answer's body.
        media_type: Its media type.
        uri: The storageUri, with which the message begins.

    Raises:
        Failure: Unsupported for another media type, FetchFailed for a body without the form of its media type.
    """
    form = _FORMS.get(media_type)
    if form is None:
        message = (
            f"{uri}: the registry answers the media type {to_one_line(media_type)!r}, and not that of a manifest. Push"
            " the model as an OCI artifact, such as with oras push; is there a registry at this host and port?"
        )
        raise Failure(Reason.UNSUPPORTED, message)
    try:
        document = form.validate_json(body)
    except ValidationError as error:
        problem = describe_invalid(body, error)
    else:
        if document.mediaType in {"", media_type}:
            return document
        problem = f"mediaType: {to_one_line(document.mediaType)!r} in an answer of {media_type}"
    message = (
        f"{uri}: the registry answers no manifest of the OCI image specification ({problem}). Push the model anew, or"
        " correct that registry."
    )
    raise Failure(Reason.FETCH_FAILED, message)


def select_manifest(index: Index, architecture: str, uri: str) -> Descriptor:
    """Return the manifest of an index for a platform: the only one, or that of the platform.

    Args:
        index: The index.
        architecture: The architecture in Go's words, such as `amd64`; the system is Linux.
        uri: The storageUri, with which the message begins.

    Raises:
        Failure: Unsupported: none or several manifests are for the platform.
    """
    manifests = [each for each in index.manifests if each.mediaType in _MANIFESTS and not _is_attestation(each)]
    if len(manifests) == 1:
        return manifests[0]
    platform = ("linux", architecture)
    matching = [each for each in manifests if each.platform and _name_platform(each.platform) == platform]
    if matching:
        return matching[0]
    found = [to_one_line("/".join(_name_platform(each.platform))) if each.platform else "none" for each in manifests]
    message = (
        f"{uri} is an index of several manifests, and none is for linux/{architecture}; their platforms are"
        f" {join_some(found) if found else 'missing'}. Write the digest of one manifest as @sha256:... into storageUri."
    )
    raise Failure(Reason.UNSUPPORTED, message)


def _name_platform(platform: Platform) -> tuple[str, str]:
    return platform.os, platform.architecture


def _is_attestation(descriptor: Descriptor) -> bool:
    """Return True for what BuildKit adds to an index about its images."""
    return bool(descriptor.annotate("vnd.docker.reference.type"))
