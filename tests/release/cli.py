"""The command line of `make release`."""

from __future__ import annotations

import sys

import click

from tests.cluster.errors import ClusterError
from tests.cluster.progress import console
from tests.release import checks, steps


def main() -> None:
    """Run the command line; a `ClusterError` is a message, not a traceback."""
    try:
        release()
    except ClusterError as error:
        console.print(f"failed: {error}", markup=False, highlight=False)
        sys.exit(1)


@click.command()
@click.option("--version", default="", help="1.2.3 or 1.2.3-rc.1")
@click.option("--registry", default="", help="host/path; without it nothing is pushed")
def release(version: str, registry: str) -> None:
    """Build the artifacts of a release into dist/, and push its images."""
    checks.check_version(version)
    checks.check_tree(steps.added_lines(), version, steps.CHANGELOG.read_text())
    has_changes = checks.check_fragments(steps.fragments(), version, steps.CHANGELOG.read_text())
    if registry:
        checks.check_registry(registry)
    steps.set_version(version, write_changelog=has_changes)
    made = steps.build_wheels()
    pinned = steps.build_images(version, registry)
    made += [*steps.image_artifacts(pinned), steps.package_chart(pinned, version)]
    made.append(steps.make_sbom(version, made))
    click.echo(steps.summary(version, registry, made, pinned))
