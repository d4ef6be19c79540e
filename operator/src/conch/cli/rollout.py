"""promote, pause, resume, abort, retry: requests to a rollout under way.

They are an annotation, by server-side apply with a field manager of their own. The spec, and all that Git says,
stay as they are, so a GitOps controller has nothing to put back.
"""

import time
from collections.abc import Callable
from typing import Any, Final

import click

from conch.api import InferenceService
from conch.api.kinds import INFERENCE_SERVICE
from conch.cli import actions
from conch.cli.actions import Ask
from conch.cli.cluster import MANAGER, Cluster, ask
from conch.cli.options import Access, access, service_argument
from conch.cli.printing import show
from conch.cli.track import chosen, variant_option
from conch.decide.rollout import annotation


def _carry_out(access: Access, name: str, variant: str | None, judge: Callable[[InferenceService], Ask]) -> None:
    """Judge the service, or its variant, as it is, write the request, and tell."""
    said = annotation(variant or "")

    async def question(cluster: Cluster) -> tuple[InferenceService, Ask]:
        service, body = await cluster.service(name)
        asked = judge(chosen(service, variant))
        if asked.request is None:
            await cluster.server.remove_annotation(INFERENCE_SERVICE, body, said, MANAGER)
        else:
            await cluster.server.annotate(INFERENCE_SERVICE, body, said, asked.request, MANAGER)
        return service, asked

    service, asked = ask(access, question)
    namespace = service.metadata.namespace
    value: dict[str, Any] = {
        "service": name,
        "namespace": namespace,
        "variant": variant,
        "annotation": said,
        "request": asked.request,
        "message": asked.told,
    }
    show(access.output, value, [asked.told, f"What comes of it: kubectl conch status {name} -n {namespace}"])


@click.command()
@service_argument
@click.option("--full", is_flag=True, help="Pass all pauses and analyses that are left, not only this step.")
@variant_option
@access
def promote(access: Access, service: str, variant: str | None, *, full: bool) -> None:
    """Pass the step that SERVICE is at."""
    _carry_out(access, service, variant, lambda seen: actions.promote(seen, time.time(), full=full))


@click.command()
@service_argument
@variant_option
@access
def pause(access: Access, service: str, variant: str | None) -> None:
    """Hold SERVICE at its step."""
    _carry_out(access, service, variant, lambda seen: actions.pause(seen, time.time()))


@click.command()
@service_argument
@variant_option
@access
def resume(access: Access, service: str, variant: str | None) -> None:
    """Go on after a pause."""
    _carry_out(access, service, variant, actions.resume)


@click.command()
@service_argument
@variant_option
@access
def abort(access: Access, service: str, variant: str | None) -> None:
    """Give the candidate of SERVICE up.

    All requests go back to the stable revision.
    """
    _carry_out(access, service, variant, lambda seen: actions.abort(seen, time.time()))


@click.command()
@service_argument
@variant_option
@access
def retry(access: Access, service: str, variant: str | None) -> None:
    """Try once more what failed."""
    _carry_out(access, service, variant, lambda seen: actions.retry(seen, time.time()))


COMMANDS: Final = (promote, pause, resume, abort, retry)
