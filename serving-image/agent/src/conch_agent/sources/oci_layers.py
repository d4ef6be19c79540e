"""The files of an artifact. A layer with a name is a file: its blob is the file's content.

The name is the annotation `org.opencontainers.image.title`, as ORAS writes it, or `org.cncf.model.filepath` of the
CNCF's ModelPack. Layers that are archives have files inside: folders that ORAS has packed, layers of the type `tar` of
ModelPack and KitOps, and the layers of an image.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import PurePosixPath
from typing import Final

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.answer import to_one_line
from conch_agent.sources.base import Archives, Entry, Item, Listing, build_listing, find_below, parse_path
from conch_agent.sources.oci_documents import Descriptor, Manifest
from conch_agent.sources.oci_uri import Artifact

_TITLE: Final = "org.opencontainers.image.title"
_FILE_PATH: Final = "org.cncf.model.filepath"
_UNPACK: Final = "io.deis.oras.content.unpack"  # of a folder that ORAS has packed
_MODEL_ARCHIVE: Final = re.compile(r"application/vnd\.(cncf\.model|kitops\.modelkit)\.[\w.]+\.v1\.tar(\+[\w-]+)?")
_IMAGE_LAYER: Final = re.compile(r"application/vnd\.(oci\.image|docker\.image\.rootfs)\..*tar.*")
_MODELS: Final = "models"  # the folder of an image that has the model, as in KServe's modelcars


def list_layers(manifest: Manifest, artifact: Artifact, version: str, uri: str) -> Listing:
    """Return the files and archives of an artifact, of which those below the path of a storageUri are meant.

    Args:
        manifest: The artifact.
        artifact: The artifact and the path of the storageUri.
        version: Digest of the manifest or index that the reference names.
        uri: The storageUri, with which messages begin.

    Raises:
        Failure: Unsupported for a layer that is neither, UnsafePath for a name that is no path below a folder or that
            two files have, NotFound for a path that is none, Empty, or TooLarge.
    """
    archives = [
        Item(PurePosixPath(f"layer-{number}"), layer.size, layer.digest, layer.digest, version, layer.digest)
        for number, layer in enumerate(manifest.layers, start=1)
        if _is_archive(layer)
    ]
    files = [layer for layer in manifest.layers if not _is_archive(layer)]
    are_layers = bool(archives) and all(_is_image_layer(layer) for layer in manifest.layers)
    if not are_layers and any(_is_image_layer(layer) for layer in manifest.layers):
        message = f"{uri} has layers of an image beside other layers. Push the model as an image, or as files."
        raise Failure(Reason.UNSUPPORTED, message)
    entries = _list_entries(files, artifact, version, uri)
    if not archives:
        if files and not entries:
            raise _build_not_found(files, artifact, uri)
        return _list_files(entries, artifact, uri)
    path, is_folder = artifact.path, artifact.is_folder
    if are_layers and not path:
        path, is_folder = _MODELS, True
    items = build_listing(entries, uri).items if entries else ()
    return Listing(items, Archives(tuple(archives), path, is_folder, are_layers))


def _list_files(entries: list[Entry], artifact: Artifact, uri: str) -> Listing:
    """Return the listing of entries. The one file that a storageUri names may have any name."""
    if len(entries) == 1 and entries[0].name == PurePosixPath(artifact.path).name:
        [only] = entries
        return Listing((Item(PurePosixPath(only.name), only.size, only.tag, only.key, only.version, only.digest),))
    return build_listing(entries, uri)


def _list_entries(layers: list[Descriptor], artifact: Artifact, version: str, uri: str) -> list[Entry]:
    """Return the layers that are files below the path of the storageUri."""
    names = [(str(parse_path(_read_name(layer, uri), uri)), layer) for layer in layers]
    name, count = Counter(name for name, _ in names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        message = f"{uri} has {count} files of the name {name[:200]!r}. Push each file once."
        raise Failure(Reason.UNSAFE_PATH, message)
    return [
        Entry(below, layer.size, layer.digest, layer.digest, version, layer.digest)
        for name, layer in names
        if (below := find_below(name, artifact.path, is_folder=artifact.is_folder))
    ]


def _build_not_found(layers: list[Descriptor], artifact: Artifact, uri: str) -> Failure:
    names = ", ".join(repr(_read_name(layer, uri)[:200]) for layer in layers[:8])
    more = f" and {len(layers) - 8} more" if len(layers) > 8 else ""
    message = (
        f"{uri}: the artifact has no file or folder {artifact.path!r}; it has {names}{more}. Correct the path in"
        " storageUri."
    )
    return Failure(Reason.NOT_FOUND, message)


def _find_name(layer: Descriptor) -> str:
    return layer.annotate(_TITLE) or layer.annotate(_FILE_PATH)


def _read_name(layer: Descriptor, uri: str) -> str:
    """Return the name of a layer that is a file."""
    if name := _find_name(layer):
        return name
    message = (
        f"{uri} has a layer without a name ({to_one_line(layer.mediaType)}). Push the model so that each layer is a"
        f" file with the annotation {_TITLE}, such as with oras push, or a packed folder."
    )
    raise Failure(Reason.UNSUPPORTED, message)


def _is_archive(layer: Descriptor) -> bool:
    return (
        layer.annotate(_UNPACK) == "true"
        or _MODEL_ARCHIVE.fullmatch(layer.mediaType) is not None
        or _is_image_layer(layer)
    )


def _is_image_layer(layer: Descriptor) -> bool:
    """Return True for a layer of an image. ORAS gives files that media type, too, and a name."""
    return not _find_name(layer) and _IMAGE_LAYER.fullmatch(layer.mediaType) is not None
