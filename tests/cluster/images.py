"""The project's images, built from their real Dockerfiles with whatever the machine has.

A docker or podman engine is used where one answers. Elsewhere buildah builds in a chroot, on a base system that
debootstrap makes from the machine's own Debian mirror and that takes the place of ``debian:bookworm-slim``.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import binaries, hostconfig, packages
from tests.cluster.buildinputs import fingerprint
from tests.cluster.errors import ClusterError
from tests.cluster.paths import REPOSITORY, cache_dir
from tests.cluster.progress import step
from tests.cluster.shell import log_run, run

IMAGES = {
    "operator": "operator/Dockerfile",
    "serving": "serving-image/Dockerfile.cpu",
    "tools": "tests/cluster/tools/Dockerfile",
    "gateways": "tests/cluster/gateways/Dockerfile",
    "prometheus": "tests/cluster/prometheus/Dockerfile",
    "keda": "tests/cluster/keda/Dockerfile",
    "registry": "tests/cluster/registry/Dockerfile",
}
"""Name and Dockerfile of every image; the build context is always the repository's root."""

DEFAULT = ("operator", "serving", "tools")
"""What is built when no name is given. The others are for the tests that name them; some take minutes to compile."""

_BUILDS = 2
_KEPT = "24h"  # images that no tag leads to: the cache of builds, which the next change may need
"""Builds at a time: one waits for the network while another unpacks."""

_PROGRAMS = {"gateways": "envoy-gateway", "keda": "keda", "registry": "registry"}
"""Images that hold programs of ours: the module whose folder is a second build context, of the module's name."""

_BASE = f"docker.io/library/debian:{hostconfig.SUITE}-slim"
_NO_DOCUMENTS = "path-exclude /usr/share/doc/*\npath-exclude /usr/share/man/*\npath-exclude /usr/share/locale/*\n"
"""Settings of dpkg, as in Debian's own slim image."""
_BASE_LABEL = "local-cluster/base"
_BASE_VERSION = hashlib.sha256((_NO_DOCUMENTS + hostconfig.NO_CACHES).encode()).hexdigest()[:12]
"""Written on the base; with another one on it, the base is made anew, and every image on it."""


def reference(name: str) -> str:
    """Return the full reference of an image: ``operator`` and ``conch/operator:dev`` mean the same.

    >>> reference("operator")
    'docker.io/conch/operator:dev'
    """
    if name in IMAGES:
        return f"docker.io/conch/{name}:dev"
    first, slash, _ = name.partition("/")
    full = name if "." in first or ":" in first or first == "localhost" else f"docker.io/{name}"
    full = full if slash else f"docker.io/library/{name}"
    return full if ":" in full.rpartition("/")[2] else f"{full}:latest"


@dataclass(frozen=True)
class Builder:
    """A program that builds images, and how it wants to be called."""

    argv: tuple[str, ...]
    is_docker: bool = False

    def build(self, name: str, dockerfile: Path, options: list[str]) -> None:
        """Build one image; its log is kept."""
        log = cache_dir() / "logs" / f"image-{name}.log"
        command: list[str | Path] = ["build", *options, "--tag", reference(name), "--file", dockerfile, REPOSITORY]
        log_run([*self.argv, *command], log, hint=f"the Dockerfile is {dockerfile}; the log is complete")

    def image_id(self, ref: str) -> str:
        """Return the id of an image (the digest of its configuration); raises when it was never built."""
        words = ["image", "inspect", "--format={{.Id}}"]
        if self.argv[0] == "buildah":
            words = ["inspect", "--type=image", "--format={{.FromImageID}}"]
        hint = ".venv/bin/python -m tests.cluster images"
        return run([*self.argv, *words, ref], hint=hint).stdout.strip().removeprefix("sha256:")

    def prune(self) -> None:
        """Remove what builds of more than a day ago left behind; docker's and podman's images are the user's own."""
        if self.argv[0] != "buildah":
            return
        words = ["images", "--quiet", "--no-trunc", "--filter=dangling=true", f"--filter=until={_KEPT}"]
        if old := run([*self.argv, *words], check=False).stdout.split():
            run([*self.argv, "rmi", *old], check=False)  # one that has become the base of another stays

    def save(self, ref: str, target: Path) -> None:
        """Write an image to a tar file."""
        if self.argv[0] == "buildah":
            run([*self.argv, "push", "--quiet", ref, f"docker-archive:{target}:{ref}"])
        else:
            run([*self.argv, "save", "--output", target, ref])


@functools.cache
def _engine() -> Builder | None:
    """Return the docker or podman that answers on this machine."""
    for engine in ("docker", "podman"):
        if shutil.which(engine) and run([engine, "info"], check=False).returncode == 0:
            return Builder((engine,), is_docker=engine == "docker")
    return None


def debian_packages() -> dict[str, str]:
    """Return the packages that building needs: none where an engine answers."""
    return {} if _engine() else packages.IMAGES


@functools.cache
def builder() -> Builder:
    """Return an engine that answers, else buildah with a storage of its own."""
    if engine := _engine():
        return engine
    packages.require_root()
    packages.ensure(packages.IMAGES)
    root = cache_dir() / "images"
    driver = "vfs" if _is_overlay(root) else "overlay"
    storage = (f"--root={root / 'storage'}", f"--runroot={root / 'run'}", f"--storage-driver={driver}")
    return Builder(("buildah", *storage))


def _is_overlay(folder: Path) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    return run(["stat", "--file-system", "--format=%T", folder]).stdout.strip() == "overlayfs"


def build(names: Iterable[str] = ()) -> None:
    """Build images (``DEFAULT`` when none is named), two at a time; unchanged layers come from the cache."""
    chosen = list(names) or list(DEFAULT)
    for name in chosen:
        if name not in IMAGES:
            message = f"there is no image {name!r}"
            raise ClusterError(message, hint=f"choose from: {', '.join(IMAGES)}")
        if not (REPOSITORY / IMAGES[name]).exists():
            message = f"{name}: {IMAGES[name]} does not exist"
            raise ClusterError(message, hint="choose other images with --only")
    engine = builder()
    options = _options(engine)
    with ThreadPoolExecutor(_BUILDS) as pool:
        built = list(pool.map(lambda name: _build(engine, name, options), chosen))
    if any(built):
        engine.prune()


def _build(engine: Builder, name: str, options: list[str]) -> bool:
    """Build an image, unless the engine has the one that was built of the same inputs; return whether it was built."""
    programs, dockerfile = _programs(name), REPOSITORY / IMAGES[name]
    inputs = fingerprint(dockerfile, REPOSITORY, [_BASE_VERSION, *programs])
    record = cache_dir() / "images" / "built" / f"{name}.json"
    with contextlib.suppress(FileNotFoundError, ClusterError):
        if json.loads(record.read_text()) == [inputs, engine.image_id(reference(name))]:
            return False
    with step(f"building {reference(name)} with {engine.argv[0]}"):
        engine.build(name, dockerfile, [*options, *programs])
    record.parent.mkdir(parents=True, exist_ok=True)
    scratch = record.with_suffix(f".{os.getpid()}")
    scratch.write_text(json.dumps([inputs, engine.image_id(reference(name))]))
    scratch.rename(record)
    return True


def modules(names: Iterable[str]) -> list[str]:
    """Return the modules whose programs these images hold."""
    return [_PROGRAMS[name] for name in names if name in _PROGRAMS]


def _programs(name: str) -> list[str]:
    """Return the options that lend a build the programs it copies; they are compiled first when not cached."""
    module = _PROGRAMS.get(name)
    return [f"--build-context={module}={binaries.ensure(binaries.MODULES[module])}"] if module else []


def _options(engine: Builder) -> list[str]:
    if engine.is_docker:
        return []
    volumes = hostconfig.write(cache_dir() / "images" / "machine")
    if engine.argv[0] == "podman":
        return ["--layers", *volumes]
    _ensure_base(engine)
    return ["--layers", "--isolation=chroot", "--pull-never", *volumes]


def _ensure_base(engine: Builder) -> None:
    """Make the base image once; afterwards it is in the storage."""
    label = f'{{{{index .OCIv1.Config.Labels "{_BASE_LABEL}"}}}}'
    if (
        run([*engine.argv, "inspect", "--type=image", "--format", label, _BASE], check=False).stdout.strip()
        == _BASE_VERSION
    ):
        return
    root = Path(tempfile.mkdtemp(prefix="base-", dir=cache_dir() / "images"))
    log = cache_dir() / "logs" / "debootstrap.log"
    try:
        with step(f"making the base system {_BASE} with debootstrap"):
            address = hostconfig.mirror(hostconfig.debian_sources())
            argv: list[str | Path] = ["debootstrap", "--variant=minbase", hostconfig.SUITE, root / "system", address]
            log_run(argv, log, hint="the machine's Debian mirror must answer")
            _slim(root / "system")
            _import_base(engine, root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _slim(system: Path) -> None:
    """Remove what the machine lent (its mirror) and what a container never reads, now and at each installation."""
    for name in ("etc/apt/sources.list", "etc/resolv.conf", "etc/hostname", "var/log/bootstrap.log"):
        (system / name).write_text("")
    for folder in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
        shutil.rmtree(system / folder, ignore_errors=True)
    for folder in ("var/cache/apt/archives/partial", "var/lib/apt/lists/partial"):
        (system / folder).mkdir(parents=True)
    (system / "etc/dpkg/dpkg.cfg.d/slim").write_text(_NO_DOCUMENTS)


def _import_base(engine: Builder, folder: Path) -> None:
    archive = folder / "base.tar"
    run(["tar", "--numeric-owner", "-C", folder / "system", "-cf", archive, "."])
    container = run([*engine.argv, "from", "scratch"]).stdout.strip()
    try:
        run([*engine.argv, "add", "--quiet", container, archive, "/"])
        run([*engine.argv, "config", "--cmd", "bash", "--label", f"{_BASE_LABEL}={_BASE_VERSION}", container])
        run([*engine.argv, "commit", "--quiet", container, _BASE])
    finally:
        run([*engine.argv, "rm", container], check=False)


@dataclass(frozen=True)
class Exported:
    """A built image as a file: its full reference, its id (the digest of its configuration), the tar file."""

    reference: str
    identity: str
    file: Path


def exported(name: str) -> Exported:
    """Return a built image as a tar file, which is written once per id."""
    ref = reference(name)
    engine = builder()
    identity = engine.image_id(ref)
    folder = cache_dir() / "images" / "exported"
    stem = ref.replace("/", "_").replace(":", "_")
    target = folder / f"{stem}-{identity[:16]}.tar"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"{stem}-*.tar"):
            old.unlink()
        scratch = target.with_suffix(f".{os.getpid()}")
        with step(f"exporting {ref}"):
            engine.save(ref, scratch)
        scratch.rename(target)
    return Exported(ref, identity, target)
