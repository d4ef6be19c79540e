"""The files of an artifact. A layer with a name is a file: its blob is the file's content.

The name is the annotation `org.opencontainers.image.title`, as ORAS writes it, or `org.cncf.model.filepath` of the
CNCF's ModelPack. Layers that are archives have files inside, and are refused.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import PurePosixPath
from typing import Final

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.answer import to_one_line
from conch_agent.sources.base import Entry, parse_path
from conch_agent.sources.oci_documents import Descriptor, Manifest
from conch_agent.sources.oci_uri import Artifact

_TITLE: Final = "org.opencontainers.image.title"
_FILE_PATH: Final = "org.cncf.model.filepath"
_UNPACK: Final = "io.deis.oras.content.unpack"  # of a folder that ORAS has packed
_MODEL_ARCHIVE: Final = re.compile(r"application/vnd\.(cncf\.model|kitops\.modelkit)\.[\w.]+\.v1\.tar(\+[\w-]+)?")
_IMAGE_LAYER: Final = re.compile(r"application/vnd\.(oci\.image|docker\.image\.rootfs)\..*tar.*")


def list_entries(manifest: Manifest, artifact: Artifact, version: str, uri: str) -> list[Entry]:
    """Return the files of an artifact below the path of a storageUri, or the file of that path.

    Args:
        manifest: The artifact.
        artifact: The artifact and the path of the storageUri.
        version: Digest of the manifest or index that the reference names.
        uri: The storageUri, with which messages begin.

    Raises:
        Failure: Unsupported for a layer that is no file, UnsafePath for a name that is no path below a folder or that
            two files have, NotFound for a path that is none.
    """
    layers = [(str(parse_path(_find_name(layer, uri), uri)), layer) for layer in manifest.layers]
    name, count = Counter(name for name, _ in layers).most_common(1)[0] if layers else ("", 0)
    if count > 1:
        message = f"{uri} has {count} files of the name {name[:200]!r}. Push each file once."
        raise Failure(Reason.UNSAFE_PATH, message)
    entries = [
        Entry(below, layer.size, layer.digest, layer.digest, version, layer.digest)
        for name, layer in layers
        if (below := _find_below(name, artifact))
    ]
    if layers and not entries:
        message = (
            f"{uri}: the artifact has no file or folder {artifact.path!r}; it has {_list_names(layers)}. Correct the"
            " path in storageUri."
        )
        raise Failure(Reason.NOT_FOUND, message)
    return entries


def _list_names(layers: list[tuple[str, Descriptor]]) -> str:
    names = [repr(name[:200]) for name, _ in layers[:8]]
    return ", ".join(names) + (f" and {len(layers) - 8} more" if len(layers) > 8 else "")


def _find_below(name: str, artifact: Artifact) -> str:
    """Return the path of a file below that of the storageUri; empty: it is not below."""
    if not artifact.path:
        return name
    if name == artifact.path and not artifact.is_folder:
        return PurePosixPath(name).name
    folder = f"{artifact.path}/"
    return name.removeprefix(folder) if name.startswith(folder) else ""


def _find_name(layer: Descriptor, uri: str) -> str:
    """Return the name of a layer that is a file."""
    name = layer.annotate(_TITLE) or layer.annotate(_FILE_PATH)
    remedy = _find_archive_remedy(layer, name)
    if name and not remedy:
        return name
    kind = f"{to_one_line(layer.mediaType)}{f', {to_one_line(name)!r}' if name else ''}"
    if remedy:
        message = f"{uri} has a layer that is an archive ({kind}), which the agent does not unpack. {remedy}."
    else:
        message = (
            f"{uri} has a layer without a name ({kind}). Push the model so that each layer is a file with the"
            f" annotation {_TITLE}, such as with oras push."
        )
    raise Failure(Reason.UNSUPPORTED, message)


def _find_archive_remedy(layer: Descriptor, name: str) -> str:
    """Return the remedy for a layer that is an archive, a sentence without its full stop; empty: it is none."""
    if layer.annotate(_UNPACK) == "true":
        return "Push the files of the folder: with oras push, name each file and no folder"
    if _MODEL_ARCHIVE.fullmatch(layer.mediaType):
        return "Pack the model in raw layers with kit pack or modctl build, or push its files with oras push"
    if not name and _IMAGE_LAYER.fullmatch(layer.mediaType):
        return (
            "Push the files of the image with oras push; or mount the image as a volume, image in pod.volumes, and"
            " write file:///path as storageUri"
        )
    return ""
