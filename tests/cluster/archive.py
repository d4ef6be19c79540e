"""A container image out of a single program, without any engine: a tar of a tar and two JSON files.

The format is the one of ``docker save`` (the Docker Image Specification, version 1.2), which every tool imports.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))


def build_layer(files: Mapping[str, bytes]) -> bytes:
    """Return a layer: a tar of files by their path, which everybody may read and execute."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            _add(archive, name, data, 0o755)
    return buffer.getvalue()


def build_config(layer: bytes, **config: object) -> bytes:
    """Return the configuration of an image of one layer: JSON, with what its containers run."""
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
            "history": [{"created_by": "conch local cluster"}],
        }
    ).encode()


def write_image(target: Path, tag: str, program: bytes, name: str) -> None:
    """Write an image that holds one static program and runs it as a user without rights."""
    layer = build_layer({name: program})
    config = build_config(layer, Entrypoint=[f"/{name}"], User="65535:65535", WorkingDir="/")
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [tag], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(target, "w") as archive:
        _add(archive, config_name, config)
        _add(archive, "layer.tar", layer)
        _add(archive, "manifest.json", manifest)
