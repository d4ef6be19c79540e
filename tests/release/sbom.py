"""The software bill of materials of a release, as CycloneDX JSON.

It lists the artifacts and the Python packages that the images install. Debian's packages are not in it.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

REQUIREMENTS: Final = ("operator.txt", "serving.txt", "serving-backends.txt", "triton-cpu.txt")
"""Files in requirements/ that the Dockerfiles of the images install."""

_NAMESPACE: Final = uuid.UUID("6f1f9c2e-4b0e-5a0c-9d5c-0c0a5c0c0a5c")  # any one; the serial number derives from it


@dataclass(frozen=True)
class Artifact:
    """A result of a release: its name, kind (wheel, chart, image) and SHA-256 in hexadecimal digits."""

    name: str
    kind: str
    sha256: str


def pins(requirements: str) -> Iterator[tuple[str, str]]:
    r"""Yield name and version of each package of a requirements file.

    >>> list(pins("aiohttp==3.14.5 \\\n    --hash=sha256:aa\ncffi==2.1 ; python_version > '3'"))
    [('aiohttp', '3.14.5'), ('cffi', '2.1')]
    """
    for match in re.finditer(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", requirements, re.MULTILINE):
        yield match[1], match[2]


def write_sbom(version: str, date: str, artifacts: Iterable[Artifact], requirements: Iterable[str]) -> str:
    """Return the SBOM of a release: the same text for the same arguments.

    Args:
        version: the version of the release.
        date: its date, YYYY-MM-DD.
        artifacts: what the release made.
        requirements: texts of the pinned requirements of the images.
    """
    made = sorted(artifacts, key=lambda artifact: (artifact.kind, artifact.name))
    packages = sorted({pin for text in requirements for pin in pins(text)})
    root = Component(name="conch", version=version, type=ComponentType.APPLICATION, bom_ref=f"conch@{version}")
    owned = [_artifact(artifact, version) for artifact in made]
    installed = [_package(name, pinned) for name, pinned in packages]
    identity = repr((version, date, made, packages))
    bom = Bom(serial_number=uuid.uuid5(_NAMESPACE, identity), components=[*owned, *installed])
    bom.metadata.timestamp = datetime.fromisoformat(date).replace(tzinfo=UTC)
    bom.metadata.component = root
    bom.register_dependency(root, [*owned, *installed])
    return str(JsonV1Dot6(bom).output_as_string(indent=2)) + "\n"


def _artifact(artifact: Artifact, version: str) -> Component:
    return Component(
        name=artifact.name,
        version=version,
        type=ComponentType.CONTAINER if artifact.kind == "image" else ComponentType.FILE,
        bom_ref=f"{artifact.kind}:{artifact.name}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=artifact.sha256)],
    )


def _package(name: str, version: str) -> Component:
    purl = PackageURL("pypi", name=name, version=version)
    return Component(name=name, version=version, type=ComponentType.LIBRARY, bom_ref=str(purl), purl=purl)
