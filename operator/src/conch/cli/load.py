"""`kubectl conch load`: load test of a service, with its latency, throughput and replicas."""

import sys
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from conch.cli import extras
from conch.cli.cluster import Cluster, run_with_cluster
from conch.cli.loadtest.options import LoadOptions
from conch.cli.loadtest.reporter import Reporter, build_summary_text
from conch.cli.loadtest.schedule import parse_schedule, parse_seconds
from conch.cli.options import Access, CommandError, access, service_argument
from conch.cli.printing import print_value
from conch.cli.track import variant_option

_FORMATS: Final = (".png", ".svg", ".pdf")


def _headers(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Return the headers of --header, which has curl's form."""
    found = {}
    for header in values:
        name, colon, value = header.partition(":")
        if not colon or not name.strip():
            raise CommandError(f"--header {header}: expected NAME: VALUE, such as 'x-user: beta'")
        found[name.strip()] = value.strip()
    return found


def _timeout(_: click.Context, __: click.Parameter, value: str) -> float:
    return parse_seconds("--timeout", value)


@click.command()
@service_argument
@click.option("--rate", metavar="R", required=True, help="Requests a second, such as 50, or a ramp such as 5..100.")
@click.option("--duration", metavar="TIME", default="30s", show_default=True, help="Duration of the run, such as 2m.")
@click.option("--protocol", type=click.Choice(("grpc", "http")), default="grpc", show_default=True)
@click.option("--url", metavar="URL", help="Endpoint; default: an address of the service, or else a port-forward.")
@click.option(
    "--port-forward", is_flag=True, help="Connect through the API server, even if the service can be reached."
)
@click.option(
    "--header",
    "headers",
    metavar="'NAME: VALUE'",
    multiple=True,
    callback=_headers,
    help="Header of each request; repeatable.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    help="Maximum number of requests in flight.",
)
@click.option(
    "--timeout",
    metavar="TIME",
    default="10s",
    show_default=True,
    callback=_timeout,
    help="Timeout of a request.",
)
@click.option(
    "--plot",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"Write a plot of the run: {', '.join(_FORMATS)}.",
)
@variant_option
@access
def load(access: Access, rate: str, duration: str, **values: Any) -> None:
    """Run a load test of SERVICE.

    It sends requests at a fixed rate, and prints latency, throughput and replicas. The requests are those of
    predictor.warmup.requests (or its configMapRef), or else generated from the model's metadata. Each is sent when it
    is due, whether or not earlier ones are answered, and its latency counts from that time: a slow service does not
    lower the rate. A request that cannot be started within a second is not sent, and counts as late.

    If no address of the service can be reached, a port-forward connects to its ready pods through the API server. For
    high rates set --url, such as a gateway's.

    Ctrl-C ends the run early; summary and plot cover the completed part. The exit status is 0 if every request was
    answered, and 1 if any failed or was late.
    """
    options = LoadOptions(rate=rate, duration=duration, schedule=parse_schedule(rate, duration), **values)
    _check(options)
    from conch.cli.loadtest.runner import run_load_test  # noqa: PLC0415  its packages are optional, and checked before

    reporter = Reporter(Console(highlight=False, stderr=access.output != "text"))

    async def call(cluster: Cluster) -> dict[str, Any]:
        return await run_load_test(cluster, options, reporter)

    value = run_with_cluster(access, call)
    print_value(access.output, value, build_summary_text(value))
    sys.exit(1 if value["failed"] or value["late"] else 0)


def _check(options: LoadOptions) -> None:
    """Check options and packages before any request is sent.

    Raises:
        CommandError: an option is invalid, or a package is missing.
    """
    if options.url and options.port_forward:
        raise CommandError("--url and --port-forward exclude each other; set one of them")
    if options.plot is not None:
        if options.plot.suffix not in _FORMATS:
            raise CommandError(f"--plot {options.plot}: expected a file that ends with {', '.join(_FORMATS)}")
        if not options.plot.absolute().parent.is_dir():
            raise CommandError(
                f"--plot {options.plot}: there is no folder {options.plot.absolute().parent}; create it first"
            )
    extras.import_extras("load", {**extras.CLIENT, **(extras.PLOT if options.plot else {})})
