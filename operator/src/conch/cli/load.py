"""`kubectl conch load`: ask a service by the clock, and show what becomes of it and of its replicas."""

import sys
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from conch.cli.cluster import Cluster, ask
from conch.cli.loadtest import extras
from conch.cli.loadtest.options import Wish
from conch.cli.loadtest.reporter import Telling, summary_text
from conch.cli.loadtest.schedule import schedule, seconds
from conch.cli.options import Access, Refused, access, service_argument
from conch.cli.printing import show
from conch.cli.track import variant_option

_PICTURES: Final = (".png", ".svg", ".pdf")


def _headers(_: click.Context, __: click.Parameter, said: tuple[str, ...]) -> dict[str, str]:
    """Read headers as curl has them."""
    found = {}
    for header in said:
        name, colon, value = header.partition(":")
        if not colon or not name.strip():
            raise Refused(f"--header {header}: expected NAME: VALUE, such as 'x-user: beta'")
        found[name.strip()] = value.strip()
    return found


def _timeout(_: click.Context, __: click.Parameter, said: str) -> float:
    return seconds("--timeout", said)


@click.command()
@service_argument
@click.option("--rate", metavar="R", required=True, help="Requests a second, such as 50, or a ramp such as 5..100.")
@click.option("--duration", metavar="TIME", default="30s", show_default=True, help="For how long, such as 2m.")
@click.option("--protocol", type=click.Choice(("grpc", "http")), default="grpc", show_default=True)
@click.option("--url", metavar="URL", help="Where to ask; default: the service's own address, or else a port-forward.")
@click.option("--port-forward", is_flag=True, help="Ask through the API server, even if the service can be reached.")
@click.option(
    "--header", "headers", metavar="'NAME: VALUE'", multiple=True, callback=_headers, help="Send it along; repeatable."
)
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    help="The most requests in flight at once.",
)
@click.option(
    "--timeout",
    metavar="TIME",
    default="10s",
    show_default=True,
    callback=_timeout,
    help="After which a request has failed.",
)
@click.option(
    "--plot",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"Draw the run: {', '.join(_PICTURES)}.",
)
@variant_option
@access
def load(access: Access, rate: str, duration: str, **said: Any) -> None:
    """Put load on SERVICE, and watch it.

    It is asked by the clock; latency, throughput and replicas are shown meanwhile. The requests are those of
    predictor.warmup.requests (or its configMapRef), or else made from the model's metadata. Each is sent when it is
    due, whether or not those before it are answered, and its latency counts from that moment: a slow service does not
    slow the question. What cannot be started within a second of it is not sent, and counted as late.

    A port-forward, which is used where no address of the service can be reached from here, leads to its ready pods
    through the API server. For real load say --url, such as a gateway's.

    Ctrl-C ends the run early; what was seen until then is shown, and drawn. Ends with 0 if every request was
    answered, with 1 if any failed or was late.
    """
    wish = Wish(rate=rate, duration=duration, schedule=schedule(rate, duration), **said)
    _prepare(wish)
    from conch.cli.loadtest.runner import course  # noqa: PLC0415  what it stands on is looked for just before

    telling = Telling(Console(highlight=False, stderr=access.output != "text"))

    async def question(cluster: Cluster) -> dict[str, Any]:
        return await course(cluster, wish, telling)

    value = ask(access, question)
    show(access.output, value, summary_text(value))
    sys.exit(1 if value["failed"] or value["late"] else 0)


def _prepare(wish: Wish) -> None:
    """Look for what is needed before anything is asked.

    Raises:
        Refused: something is missing.
    """
    if wish.url and wish.port_forward:
        raise Refused("--url and --port-forward are two ways; say one of them")
    if wish.plot is not None:
        if wish.plot.suffix not in _PICTURES:
            raise Refused(f"--plot {wish.plot}: expected a file that ends with {', '.join(_PICTURES)}")
        if not wish.plot.absolute().parent.is_dir():
            raise Refused(f"--plot {wish.plot}: there is no folder {wish.plot.absolute().parent}; make it first")
    extras.need({**extras.CLIENT, **(extras.PICTURE if wish.plot else {})})
