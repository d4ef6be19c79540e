"""`kubectl conch rollback`: restore a revision of the predictor, or of a variant."""

from typing import Any

import click

from conch.api import InferenceService
from conch.api.kinds import INFERENCE_SERVICE
from conch.api.names import ANNOTATION_CHANGE_CAUSE
from conch.cli.cluster import MANAGER, Cluster, run_with_cluster
from conch.cli.history import Entry, find_revision, read_entries
from conch.cli.options import Access, access, service_argument
from conch.cli.printing import print_value
from conch.cli.track import describe_subject, describe_track, format_arguments, select_track, variant_option
from conch.cli.variant_patch import build_variant_predictor
from conch.decide.naming import NOT_OF_PODS
from conch.observe import Revision
from conch.observe.cache_fields import author_of
from conch.write import CallError
from conch.write.conflicts import retry_on_conflict


@click.command()
@service_argument
@click.option("--to", "number", type=click.IntRange(min=1), required=True, help="Number of the revision in `history`.")
@variant_option
@access
def rollback(access: Access, service: str, variant: str | None, number: int) -> None:
    """Restore an earlier revision of SERVICE.

    This replaces spec.predictor, or that of the variant, with your permissions. It fails if another client changes the
    spec meanwhile. The number of pods (minReplicas, maxReplicas, autoscaling) stays as it is now. It is an ordinary
    change: it follows the service's steps.
    """

    async def call(cluster: Cluster) -> tuple[dict[str, Any], dict[str, Any], Entry]:
        seen, body = await cluster.get_service(service)
        entry = find_revision(select_track(seen, variant), await read_entries(cluster, body, variant or ""), number)
        return body, await write_rollback(cluster, body, entry.revision, variant), entry

    before, after, entry = run_with_cluster(access, call)
    lines = build_rollback_text(before, select_track(InferenceService.parse(after), variant), entry)
    meta = after["metadata"]
    value = {
        "service": service,
        "namespace": meta["namespace"],
        "variant": variant,
        "revision": entry.revision.name,
        "number": number,
        "generation": meta["generation"],
        "message": " ".join(lines),
    }
    print_value(access.output, value, lines)


async def write_rollback(
    cluster: Cluster, body: dict[str, Any], revision: Revision, variant: str | None = None
) -> dict[str, Any]:
    """Replace the service that was read by its rollback.

    The API server rejects it after any write of the object. If that write did not change the spec (the operator
    writes the status many times in a rollout), the current object is replaced.

    Raises:
        CallError: the spec was changed meanwhile, or the API server rejects the object.
        CommandError: the variant cannot express the revision.
    """
    meta = body["metadata"]

    async def write(seen: dict[str, Any]) -> dict[str, Any]:
        return await cluster.server.replace(INFERENCE_SERVICE, restore_revision(seen, revision, variant), MANAGER)

    async def read(conflict: CallError) -> dict[str, Any]:
        _, seen = await cluster.get_service(meta["name"])
        if (seen["metadata"]["uid"], seen["metadata"]["generation"]) != (meta["uid"], meta["generation"]):
            raise conflict
        return seen

    return await retry_on_conflict(write, read, body)


def restore_revision(body: dict[str, Any], revision: Revision, variant: str | None = None) -> dict[str, Any]:
    """Return the service with the predictor and the note of a revision, and its current number of pods.

    The number of pods is no part of a revision: restoring last month's model must not restore last month's capacity.

    Raises:
        CommandError: the variant cannot express the revision.
    """
    meta = {**body["metadata"], "annotations": dict(body["metadata"].get("annotations") or {})}
    # The note is that of the revision, as with `kubectl rollout undo`.
    meta["annotations"].pop(ANNOTATION_CHANGE_CAUSE, None)
    if revision.note:
        meta["annotations"][ANNOTATION_CHANGE_CAUSE] = revision.note
    return {**body, "metadata": meta, "spec": {**body["spec"], **_restore_spec(body, revision, variant)}}


def _restore_spec(body: dict[str, Any], revision: Revision, variant: str | None) -> dict[str, Any]:
    """Return the fields of the spec that restore the revision."""
    if variant is None:
        then = {key: value for key, value in revision.predictor.items() if key not in NOT_OF_PODS}
        return {"predictor": _keep_replicas(then, body["spec"]["predictor"])}
    predictor = build_variant_predictor(InferenceService.parse(body), variant, revision)
    variants = [
        {**each, "predictor": _keep_replicas(predictor, each.get("predictor") or {})}
        if each["name"] == variant
        else each
        for each in body["spec"]["variants"]
    ]
    return {"variants": variants}


def _keep_replicas(then: dict[str, Any], present: dict[str, Any]) -> dict[str, Any]:
    """Return an old predictor with the number of pods of the current one."""
    return {**then, **{key: value for key, value in present.items() if key in NOT_OF_PODS}}


def build_rollback_text(before: dict[str, Any], after: InferenceService, entry: Entry) -> list[str]:
    """Return the text after a rollback."""
    number, revision = entry.revision.number, entry.revision.name
    generation = after.metadata.generation
    lines = [
        f"The spec of {describe_subject(after)} has revision {number} ({revision}) again, as generation {generation}."
    ]
    if revision != after.status.stable and after.spec.rollout.steps:
        lines.append(
            f"It follows the service's steps; to skip them: kubectl conch promote{format_arguments(after)} --full"
        )
    author = author_of(before, after.variant)
    if author and author != MANAGER:
        lines.append(
            f"{author} wrote {describe_track(after)} before. If that is a GitOps controller, it restores Git's version"
            " unless Git changes too."
        )
    lines.append(f"To follow it: kubectl conch status {after.metadata.name} -n {after.metadata.namespace}")
    return lines
