"""The command line of the local cluster; every command is a thin shell around ``Cluster`` or ``images``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.table import Table

from tests.cluster import binaries, clients, images, preparation
from tests.cluster.cluster import DEFAULT_NAME, Cluster
from tests.cluster.errors import ClusterError
from tests.cluster.progress import console, print_line

_PASS_THROUGH = {"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []}
_name = click.option("--name", default=DEFAULT_NAME, envvar="CONCH_CLUSTER", show_default=True, help="Which cluster.")


def main() -> None:
    """Run the command line; a ``ClusterError`` is a message, not a traceback."""
    try:
        cli()
    except ClusterError as error:
        console.print("[red bold]failed[/]", end=" ")
        print_line(str(error))
        sys.exit(1)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """A real Kubernetes cluster on this machine, for tests and the demo."""


@cli.command()
@_name
@click.option("--nodes", default=2, show_default=True, help="Real nodes; 0 is a control plane only.")
@click.option("--kwok", is_flag=True, help="Add two fake nodes: pods bound to them only pretend to run.")
def up(name: str, nodes: int, *, kwok: bool) -> None:
    """Bring the cluster up; does nothing to one that is up."""
    Cluster(name).up(nodes, kwok=kwok)


@cli.command()
@_name
def down(name: str) -> None:
    """Take the cluster down and leave nothing of it."""
    Cluster(name).down()


@cli.command()
@_name
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def status(name: str, output: str) -> None:
    """Show versions, nodes, components and where the files are; ends with 1 when something is not well."""
    data = Cluster(name).status()
    if output == "json":
        click.echo(json.dumps(data, indent=2))
    else:
        _print_status(data)
    sys.exit(0 if is_well(data) else 1)


def is_well(data: dict[str, Any]) -> bool:
    """Whether everything in a status is up."""
    parts = [part["healthy"] for part in data.get("components", {}).values()]
    return bool(data["up"] and all(parts) and all(node["ready"] for node in data.get("nodes", [])))


def _print_status(data: dict[str, Any]) -> None:
    if not data["up"]:
        click.echo(f"cluster {data['name']} is down")
        return
    for key in ("kubeconfig", "server", "auditLog", "logs"):
        click.echo(f"{key:12} {data[key]}")
    click.echo(f"{'versions':12} " + ", ".join(f"{name} {version}" for name, version in data["versions"].items()))
    table = Table("part", "state", "detail")
    for node in data["nodes"]:
        table.add_row(node["name"], "Ready" if node["ready"] else "NotReady", str(node["address"]))
    for name, part in data["components"].items():
        table.add_row(name, "healthy" if part["healthy"] else "NOT WELL", f"pid {part['pid']}")
    console.print(table)


@cli.command()
@_name
def kubeconfig(name: str) -> None:
    """Print the path of the administrator's kubeconfig."""
    click.echo(Cluster(name).kubeconfig)


@cli.command()
@click.option("--image", multiple=True, type=click.Choice(list(images.IMAGES)), help="Build this image (repeatable).")
@click.argument("module", nargs=-1, type=click.Choice([name for name, m in binaries.MODULES.items() if m.programs]))
def build(image: tuple[str, ...], module: tuple[str, ...]) -> None:
    """Compile the programs of MODULE and build images, side by side; what is cached costs nothing."""
    preparation.prepare(module, image)


@cli.command("images")
@click.option("--only", multiple=True, type=click.Choice(list(images.IMAGES)), help="Build this one (repeatable).")
@click.argument("more", nargs=-1, type=click.Choice(list(images.IMAGES)))
def build_images(only: tuple[str, ...], more: tuple[str, ...]) -> None:
    """Build the project's images; those that only some tests need are built when they are named."""
    chosen = [*only, *more] or list(images.DEFAULT)
    preparation.prepare([], chosen)


@cli.command()
@_name
@click.argument("image", nargs=-1, required=True)
def load(name: str, image: tuple[str, ...]) -> None:
    """Bring built images onto the cluster's nodes."""
    Cluster(name).load(*image)


@cli.command("exec", context_settings=_PASS_THROUGH)
@_name
@click.argument("place")
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(name: str, place: str, argv: tuple[str, ...]) -> None:
    """Run a command in the network of PLACE: control, node-1, node-2..."""
    sys.exit(Cluster(name).run_in(place, argv[1:] if argv[0] == "--" else argv))


@cli.command(context_settings=_PASS_THROUGH)
@click.argument("argv", nargs=-1, type=click.UNPROCESSED)
def kubectl(argv: tuple[str, ...]) -> None:
    """Run kubectl against the cluster that CONCH_CLUSTER names."""
    _become(clients.program("kubectl"), argv)


@cli.command(context_settings=_PASS_THROUGH)
@click.argument("argv", nargs=-1, type=click.UNPROCESSED)
def helm(argv: tuple[str, ...]) -> None:
    """Run helm against the cluster that CONCH_CLUSTER names."""
    _become(clients.program("helm"), argv)


def _become(program: Path, argv: tuple[str, ...]) -> NoReturn:
    config = Cluster(os.environ.get("CONCH_CLUSTER", DEFAULT_NAME)).kubeconfig
    sys.exit(subprocess.run([program, *argv], env={**os.environ, "KUBECONFIG": str(config)}, check=False).returncode)
