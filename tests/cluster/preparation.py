"""What takes minutes on a fresh machine, made at once: programs are compiled while images are built.

The compiler needs the processor, an image mostly the network, so each uses what the other leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from tests.cluster import binaries, images, packages
from tests.cluster.progress import say


def cluster_modules(nodes: int, *, kwok: bool = False, metrics_server: bool = True) -> list[str]:
    """Return the modules whose programs a cluster of this shape runs."""
    names = ["kubernetes"]
    names += ["coredns"] if nodes else []
    names += ["metrics-server"] if nodes and metrics_server else []
    names += ["kwok"] if kwok else []
    return names


def prepare(modules: Iterable[str], image_names: Sequence[str] = (), debian: Sequence[dict[str, str]] = ()) -> None:
    """Compile the programs of modules, install packages and build images; what is there already costs nothing.

    Args:
        modules: names of `binaries.MODULES`; those of one go.mod are compiled together.
        image_names: names of `images.IMAGES`; the files for the nodes are written too.
        debian: groups of `packages` that are needed later, installed by the same run of apt.

    Raises:
        ClusterError: a build failed; the others were finished first.
    """
    wanted = list(dict.fromkeys([*modules, *images.modules(image_names)]))
    missing = [name for name in wanted if not binaries.is_built(binaries.MODULES[name])]
    jobs: dict[str, Callable[[], None]] = {}
    if missing:
        say(f"compiling what is not cached, while packages and images are made: {', '.join(missing)}")
        jobs["programs"] = lambda: binaries.ensure_all(binaries.MODULES[name] for name in missing)
    jobs["packages and images"] = lambda: _build(image_names, debian)
    with ThreadPoolExecutor() as pool:
        running = {pool.submit(job): name for name, job in jobs.items()}
        for done in as_completed(running):
            done.result()
            if rest := [name for future, name in running.items() if not future.done()]:
                say(f"still to come: {', '.join(rest)}")


def _build(image_names: Sequence[str], debian: Sequence[dict[str, str]]) -> None:
    packages.ensure(*debian, images.debian_packages() if image_names else {})
    if image_names:
        images.build(image_names)
        for name in image_names:
            images.exported(name)
