"""The steps of a release: each writes files of the checkout or of dist/, or pushes an image."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from tests.cluster import binaries, images
from tests.cluster.errors import ClusterError
from tests.cluster.paths import REPOSITORY
from tests.cluster.progress import step
from tests.cluster.shell import run
from tests.release import chart
from tests.release.checks import release_date
from tests.release.sbom import REQUIREMENTS, Artifact, write_sbom

CHANGELOG: Final = REPOSITORY / "CHANGELOG.md"
DIST: Final = REPOSITORY / "dist"
IMAGES: Final = ("operator", "serving", "tools")
_PACKAGES: Final = ("serving-image/contract", "serving-image/agent", "operator/core", "operator", "operator/kubectl")
_TOOLS: Final = Path(sys.executable).parent
_ABSENT: Final = ("MANIFEST_UNKNOWN", "NAME_UNKNOWN", "404")  # errors of a registry without the tag
Pinned = dict[str, tuple[str, str]]
"""Repository and digest (sha256:...) of each image, by its name."""


def added_lines() -> dict[str, list[str]]:
    """Return the lines added to each changed file of the work tree; none for a file that git does not track."""
    git: list[str | Path] = ["git", "-C", REPOSITORY]
    status = run([*git, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all"]).stdout
    names = [entry[3:] for entry in status.split("\0") if entry]
    return {name: _added(run([*git, "diff", "HEAD", "--unified=0", "--", name]).stdout) for name in names}


def _added(diff: str) -> list[str]:
    return [line for line in diff.splitlines() if line.startswith("+") and not line.startswith("+++")]


def fragments() -> list[str]:
    """Return the names of the changelog's fragments."""
    return [path.name for path in (REPOSITORY / "changelog.d").glob("*.md")]


def set_version(version: str, *, write_changelog: bool) -> None:
    """Write the version to all files that state it, and the changelog from its fragments."""
    with step(f"setting version {version}"):
        run(["make", "--no-print-directory", "version", f"VERSION={version}"], cwd=REPOSITORY)
    if write_changelog:
        with step("writing CHANGELOG.md from changelog.d"):
            run([_TOOLS / "towncrier", "build", "--version", version, "--yes"], cwd=REPOSITORY)


def build_wheels() -> list[Artifact]:
    """Build the wheels of the distributions into dist/."""
    DIST.mkdir(exist_ok=True)
    made = []
    for package in _PACKAGES:
        with step(f"building the wheel of {package}"), tempfile.TemporaryDirectory(dir=DIST) as folder:
            build: list[str | Path] = [
                _TOOLS / "uv",
                "build",
                "--quiet",
                "--wheel",
                "--no-build-isolation",
                "--python",
                sys.executable,
            ]
            run([*build, "--out-dir", folder, REPOSITORY / package], cwd=REPOSITORY)
            (built,) = Path(folder).glob("*.whl")
            made.append(_artifact(built.rename(DIST / built.name), "wheel"))
    return made


def build_images(version: str, registry: str) -> Pinned:
    """Build the images, and push them if there is a registry; the digest is the same either way.

    crane computes a digest from an archive without a registry, and docker, podman and buildah all write such archives.
    """
    images.build(IMAGES)
    crane = binaries.program("crane")
    pinned = {}
    for name in IMAGES:
        archive = images.exported(name).file
        with step(f"computing the digest of conch/{name}"):
            digest = run([crane, "digest", "--tarball", archive]).stdout.strip()
        repository = f"{registry}/{name}" if registry else f"conch/{name}"
        if registry:
            with step(f"pushing {repository}:{version}"):
                _push(crane, archive, f"{repository}:{version}", digest)
        pinned[name] = (repository, digest)
    return pinned


def _push(crane: Path, archive: Path, reference: str, digest: str) -> None:
    """Push an image; raise if the tag exists with another digest: a released tag does not change."""
    present = run([crane, "digest", reference], check=False)
    if present.returncode != 0 and not any(code in present.stderr for code in _ABSENT):
        raise ClusterError(
            f"{reference} cannot be read: {present.stderr.strip()}", hint="log in with docker login, or try again"
        )
    if present.returncode == 0 and present.stdout.strip() != digest:
        raise ClusterError(
            f"{reference} exists with digest {present.stdout.strip()}; expected {digest}.",
            hint="release another VERSION, or delete the tag in the registry",
        )
    run([crane, "push", archive, reference], hint="crane uses the logins of docker: docker login <host>")
    pushed = run([crane, "digest", reference]).stdout.strip()
    if pushed != digest:
        raise ClusterError(f"{reference} has digest {pushed} after the push; expected {digest}.", hint="push again")


def image_artifacts(pinned: Mapping[str, tuple[str, str]]) -> list[Artifact]:
    """Return the images as artifacts."""
    return [Artifact(repository, "image", digest.removeprefix("sha256:")) for repository, digest in pinned.values()]


def package_chart(pinned: Mapping[str, tuple[str, str]], version: str) -> Artifact:
    """Package the chart into dist/, with the images by digest."""
    with step("packaging the chart with images by digest"):
        source = REPOSITORY / "charts" / "conch"
        values = chart.pin_images((source / "values.yaml").read_text(), pinned, version)
        return _artifact(chart.package(source, values, DIST), "chart")


def make_sbom(version: str, made: Iterable[Artifact]) -> Artifact:
    """Write the SBOM into dist/."""
    with step("writing the SBOM"):
        texts = [(REPOSITORY / "requirements" / name).read_text() for name in REQUIREMENTS]
        file = DIST / f"conch-{version}.cdx.json"
        file.write_text(write_sbom(version, release_date(CHANGELOG.read_text(), version), made, texts))
    return _artifact(file, "sbom")


def _artifact(file: Path, kind: str) -> Artifact:
    return Artifact(file.name, kind, hashlib.sha256(file.read_bytes()).hexdigest())


def summary(version: str, registry: str, made: Iterable[Artifact], pinned: Mapping[str, tuple[str, str]]) -> str:
    """Return what was made, with digests, and the commands that remain."""
    lines = [f"Made in dist/ ({'images pushed' if registry else 'nothing pushed'}):"]
    lines += [f"  {each.kind:6} {each.name}  sha256:{each.sha256}" for each in made if each.kind != "image"]
    lines += [f"  image  {repository}:{version}  {digest}" for repository, digest in pinned.values()]
    lines += [
        "To do:",
        "  git add --all && git commit --message 'Release " + version + "'",
        f"  git tag --annotate v{version} --message 'Conch {version}' && git push --follow-tags",
        f"  .venv/bin/uv publish {' '.join(f'dist/{each.name}' for each in made if each.kind == 'wheel')}",
        f"  helm push dist/conch-{version}.tgz oci://{registry or '<registry>'}",
    ]
    if not registry:
        lines.append(f"  make release VERSION={version} REGISTRY=<host/path>   # push the images")
    return "\n".join(lines)
