"""promote, pause, resume, abort, retry: requests to a rollout.

A request is an annotation, written by server-side apply with its own field manager. The spec and all fields in Git stay
as they are, so a GitOps controller has nothing to restore.
"""

import time
from collections.abc import Callable
from typing import Any, Final

import click

from conch.api import InferenceService
from conch.api.kinds import INFERENCE_SERVICE
from conch.cli import actions
from conch.cli.actions import RequestUpdate
from conch.cli.cluster import MANAGER, Cluster, run_with_cluster
from conch.cli.options import Access, access, service_argument
from conch.cli.printing import print_value
from conch.cli.track import select_track, variant_option
from conch.decide.rollout import annotation


def _send(access: Access, name: str, variant: str | None, build: Callable[[InferenceService], RequestUpdate]) -> None:
    """Build the request for the service, or its variant, write it, and print the message."""
    key = annotation(variant or "")

    async def call(cluster: Cluster) -> tuple[InferenceService, RequestUpdate]:
        service, body = await cluster.get_service(name)
        update = build(select_track(service, variant))
        if update.request is None:
            await cluster.server.remove_annotation(INFERENCE_SERVICE, body, key, MANAGER)
        else:
            await cluster.server.annotate(INFERENCE_SERVICE, body, key, update.request, MANAGER)
        return service, update

    service, update = run_with_cluster(access, call)
    namespace = service.metadata.namespace
    value: dict[str, Any] = {
        "service": name,
        "namespace": namespace,
        "variant": variant,
        "annotation": key,
        "request": update.request,
        "message": update.message,
    }
    print_value(access.output, value, [update.message, f"To follow it: kubectl conch status {name} -n {namespace}"])


@click.command()
@service_argument
@click.option("--full", is_flag=True, help="Pass all remaining pauses and analyses, not only the current step.")
@variant_option
@access
def promote(access: Access, service: str, variant: str | None, *, full: bool) -> None:
    """Pass the current step of SERVICE."""
    _send(access, service, variant, lambda seen: actions.promote(seen, time.time(), full=full))


@click.command()
@service_argument
@variant_option
@access
def pause(access: Access, service: str, variant: str | None) -> None:
    """Pause SERVICE at its current step."""
    _send(access, service, variant, lambda seen: actions.pause(seen, time.time()))


@click.command()
@service_argument
@variant_option
@access
def resume(access: Access, service: str, variant: str | None) -> None:
    """Continue a paused rollout of SERVICE."""
    _send(access, service, variant, actions.resume)


@click.command()
@service_argument
@variant_option
@access
def abort(access: Access, service: str, variant: str | None) -> None:
    """Abort the rollout of SERVICE.

    All requests return to the stable revision.
    """
    _send(access, service, variant, lambda seen: actions.abort(seen, time.time()))


@click.command()
@service_argument
@variant_option
@access
def retry(access: Access, service: str, variant: str | None) -> None:
    """Retry a failed or aborted rollout."""
    _send(access, service, variant, lambda seen: actions.retry(seen, time.time()))


COMMANDS: Final = (promote, pause, resume, abort, retry)
