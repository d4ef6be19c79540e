"""Images on nodes: each node's containerd has a store of its own, as on separate machines."""

from __future__ import annotations

from pathlib import Path

from tests.cluster import archive, binaries
from tests.cluster.errors import ClusterError
from tests.cluster.images import Exported
from tests.cluster.paths import ClusterPaths
from tests.cluster.plan import Node
from tests.cluster.shell import run
from tests.cluster.worker import PAUSE_IMAGE, socket

_LABEL = "local-cluster/image-id"


def ctr(paths: ClusterPaths, node: Node, *arguments: str | Path) -> str:
    """Run containerd's own client against a node, in the namespace that the kubelet uses; returns its output."""
    return run([binaries.program("ctr"), "--address", socket(paths, node), "--namespace", "k8s.io", *arguments]).stdout


def is_loaded(paths: ClusterPaths, node: Node, image: Exported) -> bool:
    """Whether a node has that very image: importing changes digests, so its id is kept as a label."""
    return f"{_LABEL}={image.identity}" in ctr(paths, node, "images", "ls", f"name=={image.reference}")


def load(paths: ClusterPaths, image: Exported, node: Node) -> None:
    """Import an image's tar file into a node's containerd.

    ctr holds no lease on a layer that it finds unpacked, such as one of an image that was just replaced: containerd's
    garbage collector may remove it meanwhile. The second import unpacks it.
    """
    try:
        ctr(paths, node, "images", "import", image.file)
    except ClusterError as error:
        if "parent snapshot" not in str(error):
            raise
        ctr(paths, node, "images", "import", image.file)
    ctr(paths, node, "images", "label", image.reference, f"{_LABEL}={image.identity}")


def load_pause(paths: ClusterPaths, node: Node) -> None:
    """Give a node the image of every pod's sandbox, made on the spot."""
    if PAUSE_IMAGE in ctr(paths, node, "images", "ls", "-q").split():
        return
    image = paths.node(node.name) / "pause.tar"
    archive.write_image(image, PAUSE_IMAGE, binaries.pause().read_bytes(), "pause")
    ctr(paths, node, "images", "import", image)
    image.unlink()
