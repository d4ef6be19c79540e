"""The options that all commands share, with kubectl's names."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final, Literal

import click

Format = Literal["text", "json", "yaml"]
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
FORMATS: Final = ("text", "json", "yaml")


class CommandError(click.ClickException):
    """An error of a command: what happened, what was expected, what to do. Ends the command with 1."""

    def format_message(self) -> str:
        """Return the message without characters that control a terminal: it may have texts of others."""
        return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in self.message)


@dataclass(frozen=True)
class Access:
    """Cluster, namespace and output format of a command."""

    namespace: str | None = None
    context: str | None = None
    kubeconfig: str | None = None
    output: Format = "text"


class ObjectName(click.ParamType[str]):
    """The name of an object of Kubernetes, as its URL has it (DNS-1123 subdomain)."""

    name = "NAME"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name. An invalid one is an error with what was expected."""
        if not is_object_name(value):
            self.fail(
                f"{value!r} is not a name: expected at most 253 of a-z, 0-9, '-' and '.', such as magika", param, ctx
            )
        return value


def is_object_name(value: object) -> bool:
    """Whether a value is a DNS-1123 subdomain."""
    return isinstance(value, str) and len(value) <= 253 and _NAME.fullmatch(value) is not None


def service_argument(command: Callable[..., None]) -> Callable[..., None]:
    """Add the argument SERVICE to a command."""
    return click.argument("service", type=ObjectName())(command)


def access(command: Callable[..., None]) -> Callable[..., None]:
    """Add the shared options to a command, as its first argument `access`."""

    @click.option("-n", "--namespace", metavar="NAME", type=ObjectName(), help="The namespace; default: the context's.")
    @click.option("--context", metavar="NAME", help="A context of the kubeconfig; default: its current one.")
    @click.option("--kubeconfig", metavar="FILE", type=click.Path(dir_okay=False), help="Default: as for kubectl.")
    @click.option(
        "-o", "--output", type=click.Choice(FORMATS), default="text", show_default=True, help="Output format."
    )
    @wraps(command)
    def with_access(
        *, namespace: str | None, context: str | None, kubeconfig: str | None, output: Format, **rest: Any
    ) -> None:
        command(Access(namespace, context, kubeconfig, output), **rest)

    return with_access
