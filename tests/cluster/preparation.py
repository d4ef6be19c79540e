"""What takes minutes on a fresh machine, made at once: programs are compiled while images are built.

The compiler needs the processor, an image mostly the network, so each uses what the other leaves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.cluster import binaries, clients, images, packages
from tests.cluster.progress import print_line


def cluster_modules(nodes: int, *, kwok: bool = False, metrics_server: bool = True) -> list[str]:
    """Return the modules whose programs a cluster of this shape runs."""
    names = ["containerd"] if nodes else []  # first: nodes get their images while the others compile
    names += ["kubernetes"]
    names += ["coredns"] if nodes else []
    names += ["metrics-server"] if nodes and metrics_server else []
    names += ["kwok"] if kwok else []
    return names


def prepare(modules: Iterable[str], image_names: Sequence[str] = ()) -> None:
    """Compile the programs of modules and build images; what is there already costs nothing.

    Args:
        modules: names of `binaries.MODULES`; those of one go.mod are compiled together.
        image_names: names of `images.IMAGES`; the files for the nodes are written too.

    Raises:
        ClusterError: a build failed; the others were finished first.
    """
    with ThreadPoolExecutor() as pool:
        programs = pool.submit(compile_programs, [*modules, *images.modules(image_names)])
        install_packages([], for_images=bool(image_names))
        build_images(image_names)
        programs.result()


def compile_programs(modules: Iterable[str]) -> None:
    """Compile what is not cached, and fetch the clients that every cluster is used by."""
    clients.program("kubectl")
    missing = [name for name in dict.fromkeys(modules) if not binaries.is_built(binaries.MODULES[name])]
    if missing:
        print_line(f"compiling what is not cached, while packages and images are made: {', '.join(missing)}")
        binaries.ensure_all(binaries.MODULES[name] for name in missing)


def install_packages(groups: Sequence[dict[str, str]], *, for_images: bool) -> None:
    """Install groups of `packages`, and what builds images where they are needed, by one run of apt."""
    packages.ensure(*groups, images.debian_packages() if for_images else {})


def build_images(names: Sequence[str]) -> None:
    """Build images and write the files for the nodes."""
    if names:
        images.build(names)
        for name in names:
            images.exported(name)
