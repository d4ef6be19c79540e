"""The URI of an artifact in a registry: `oci://host/name:tag`, `@sha256:digest` in place of the tag, and a path.

Neither a tag nor a digest has a slash (OCI distribution specification, "Pulling manifests"), so the first slash after
it begins the path, and one of them is required.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from conch_agent.reasons import Failure, Reason
from conch_contract.schemes import SCHEMES

DOCKER_HUB: Final = "docker.io"
_DOCKER_HUB_NAMES: Final = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})
_DOCKER_HUB_API: Final = "registry-1.docker.io"
_SCHEME: Final = SCHEMES["oci"]
_URI: Final = re.compile(
    r"oci://(?P<host>[^/]+)/(?P<name>[^:@]+)(:(?P<tag>[^/@]+))?(@(?P<digest>sha256:[0-9a-f]+))?(?P<path>/.*)?"
)


@dataclass(frozen=True)
class Artifact:
    """An artifact in a registry, or a file or folder in it.

    Attributes:
        host: Host of the registry, with its port where the URI has one; for Docker Hub docker.io.
        name: Name of the repository.
        reference: The tag or the digest of the manifest; the digest, where the URI has both.
        path: Path of the file or folder; empty: the whole artifact.
        is_folder: True if the URI ends with a slash.
    """

    host: str
    name: str
    reference: str
    path: str = ""
    is_folder: bool = False

    @property
    def api_host(self) -> str:
        """The host with which the registry answers requests, with its port."""
        return _DOCKER_HUB_API if self.host == DOCKER_HUB else self.host

    @property
    def label(self) -> str:
        """Name and reference."""
        return f"{self.name}{'@' if ':' in self.reference else ':'}{self.reference}"

    def build_manifest_path(self, reference: str) -> str:
        """Return the path of a manifest's URL.

        Args:
            reference: Its tag or digest.
        """
        return f"/v2/{self.name}/manifests/{reference}"

    def build_blob_path(self, digest: str) -> str:
        """Return the path of a blob's URL.

        Args:
            digest: Its digest.
        """
        return f"/v2/{self.name}/blobs/{digest}"


def normalize_host(host: str) -> str:
    """Return the host of a registry as `Artifact.host` has it.

    Args:
        host: The host, with its port if it has one.

    >>> normalize_host("index.docker.io"), normalize_host("Registry.example:5000")
    ('docker.io', 'registry.example:5000')
    """
    host = host.lower()
    return DOCKER_HUB if host in _DOCKER_HUB_NAMES else host


def parse_uri(uri: str) -> Artifact:
    """Return the artifact of a storageUri.

    Args:
        uri: The storageUri.

    Raises:
        Failure: Unsupported, with the form of the scheme.

    >>> parse_uri("oci://registry:5000/team/model:v1/onnx/")
    Artifact(host='registry:5000', name='team/model', reference='v1', path='onnx', is_folder=True)
    >>> parse_uri("oci://docker.io/model:v1").name
    'library/model'
    """
    found = _URI.fullmatch(uri)
    if not found or not re.fullmatch(_SCHEME.pattern, uri.removeprefix("oci://")):
        message = f"{uri} does not name an artifact in a registry. Write {_SCHEME.form}."
        raise Failure(Reason.UNSUPPORTED, message)
    host, name, path = normalize_host(found["host"]), found["name"], found["path"] or ""
    if host == DOCKER_HUB and "/" not in name:
        name = f"library/{name}"
    return Artifact(host, name, found["digest"] or found["tag"], path.strip("/"), path.endswith("/"))
