"""The chart of a release: the images by digest, and an archive with the same bytes for the same files."""

from __future__ import annotations

import gzip
import io
import re
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.cluster import clients
from tests.cluster.errors import ClusterError
from tests.cluster.shell import run

VALUES: Final = {"image": "operator", "servingImage": "serving"}
"""The values that name an image, and which image of a release each is."""


def pin_images(values: str, pinned: Mapping[str, tuple[str, str]], version: str) -> str:
    """Return values.yaml with repository, tag and digest of each image; comments stay.

    Args:
        values: text of values.yaml.
        pinned: repository and digest (sha256:...) of each image, by its name.
        version: the tag, for people: the chart uses the digest.

    Raises:
        ClusterError: values.yaml has no such block.
    """
    for key, image in VALUES.items():
        repository, digest = pinned[image]
        fields = {"repository": repository, "tag": f'"{version}"', "digest": digest}
        block = re.search(rf"^{key}:\n(?:[ #].*\n)+", values, re.MULTILINE)
        text = block[0] if block else ""
        for field, value in fields.items():
            text, count = re.subn(rf"^  {field}: .*$", f"  {field}: {value}", text, flags=re.MULTILINE)
            if count != 1:
                raise ClusterError(
                    f"charts/conch/values.yaml: {key}.{field} is in {count} lines; expected 1.",
                    hint="keep repository, tag and digest, each in a line of its own",
                )
        assert block is not None
        values = values.replace(block[0], text)
    return values


def package(chart: Path, values: str, target: Path) -> Path:
    """Package a copy of the chart that has these values, with Helm; return the archive in `target`."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / chart.name
        shutil.copytree(chart, copy)
        (copy / "values.yaml").write_text(values)
        helm = clients.program("helm")
        run([helm, "lint", "--strict", copy], hint="make lint-chart")
        run([helm, "package", copy, "--destination", folder])
        (built,) = Path(folder).glob("*.tgz")
        archive = target / built.name
        archive.write_bytes(_without_times(built.read_bytes()))
    return archive


def _without_times(archive: bytes) -> bytes:
    """Return an archive with its members in order and without times: Helm records when it packaged."""
    output = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as source,
        gzip.GzipFile(fileobj=output, mode="wb", filename="", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as target,
    ):
        for member in sorted(source.getmembers(), key=lambda each: each.name):
            member.mtime = 0
            member.pax_headers = {}
            target.addfile(member, source.extractfile(member))
    return output.getvalue()
