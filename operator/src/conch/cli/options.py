"""The options that all commands share: kubectl's own, by kubectl's names."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final, Literal

import click

Format = Literal["text", "json", "yaml"]
FORMATS: Final = ("text", "json", "yaml")


class Refused(click.ClickException):
    """What cannot be done, and the way out, in a sentence. Ends the command with 1."""


@dataclass(frozen=True)
class Access:
    """Which cluster, which namespace, and how to answer."""

    namespace: str | None = None
    context: str | None = None
    kubeconfig: str | None = None
    output: Format = "text"


def access(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the shared options, as its first argument `access`."""

    @click.option("-n", "--namespace", metavar="NAME", help="The namespace; default: the context's.")
    @click.option("--context", metavar="NAME", help="A context of the kubeconfig; default: its current one.")
    @click.option("--kubeconfig", metavar="FILE", type=click.Path(dir_okay=False), help="Default: as for kubectl.")
    @click.option(
        "-o", "--output", type=click.Choice(FORMATS), default="text", show_default=True, help="How to answer."
    )
    @wraps(command)
    def with_access(
        *, namespace: str | None, context: str | None, kubeconfig: str | None, output: Format, **rest: Any
    ) -> None:
        command(Access(namespace, context, kubeconfig, output), **rest)

    return with_access
