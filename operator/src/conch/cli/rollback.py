"""`kubectl conch rollback`: going back to a revision of the predictor, or of a variant."""

from typing import Any

import click

from conch.api import InferenceService
from conch.api.kinds import INFERENCE_SERVICE
from conch.api.names import ANNOTATION_CHANGE_CAUSE
from conch.cli.cluster import MANAGER, Cluster, ask
from conch.cli.history import Entry, entries, find
from conch.cli.options import Access, access, service_argument
from conch.cli.printing import show
from conch.cli.track import chosen, noun, subject, variant_option, where
from conch.cli.variant_patch import variant_words
from conch.decide.naming import NOT_OF_PODS
from conch.observe import Revision
from conch.observe.cache_fields import author_of
from conch.write import CallError
from conch.write.conflicts import retry_on_conflict


@click.command()
@service_argument
@click.option("--to", "number", type=click.IntRange(min=1), required=True, help="The number that `history` shows.")
@variant_option
@access
def rollback(access: Access, service: str, variant: str | None, number: int) -> None:
    """Go back to an earlier revision of SERVICE.

    spec.predictor, or that of the variant, is replaced, as you: with your rights, refused if anybody changed the
    service meanwhile. What sets the number of pods (minReplicas, maxReplicas, autoscaling) stays as it is now. It is
    a change like any other: it goes by the service's own steps.
    """

    async def question(cluster: Cluster) -> tuple[dict[str, Any], dict[str, Any], Entry]:
        seen, body = await cluster.service(service)
        entry = find(chosen(seen, variant), await entries(cluster, body, variant or ""), number)
        return body, await replace(cluster, body, entry.revision, variant), entry

    before, after, entry = ask(access, question)
    told = rollback_told(before, chosen(InferenceService.parse(after), variant), entry)
    meta = after["metadata"]
    value = {
        "service": service,
        "namespace": meta["namespace"],
        "variant": variant,
        "revision": entry.revision.name,
        "number": number,
        "generation": meta["generation"],
        "message": " ".join(told),
    }
    show(access.output, value, told)


async def replace(
    cluster: Cluster, body: dict[str, Any], revision: Revision, variant: str | None = None
) -> dict[str, Any]:
    """Write the rollback over the service as it was read.

    The API server refuses it if anything of the object was written since. Where that was not the spec (the operator
    tells its status many times in a rollout), it is written over what is there now.

    Raises:
        CallError: the spec was changed meanwhile, or the API server says no.
        Refused: the variant cannot say it.
    """
    meta = body["metadata"]

    async def write(seen: dict[str, Any]) -> dict[str, Any]:
        return await cluster.server.replace(INFERENCE_SERVICE, rolled_back(seen, revision, variant), MANAGER)

    async def read(conflict: CallError) -> dict[str, Any]:
        _, seen = await cluster.service(meta["name"])
        if (seen["metadata"]["uid"], seen["metadata"]["generation"]) != (meta["uid"], meta["generation"]):
            raise conflict
        return seen

    return await retry_on_conflict(write, read, body)


def rolled_back(body: dict[str, Any], revision: Revision, variant: str | None = None) -> dict[str, Any]:
    """Return the service as it shall be: that revision's predictor and note, the present number of pods.

    A revision is what its pods are. How many there are is a matter of today: going back to a model of last month
    must not bring last month's capacity with it.

    Raises:
        Refused: the variant cannot say it.
    """
    meta = {**body["metadata"], "annotations": dict(body["metadata"].get("annotations") or {})}
    # The note travels with the revision, as it does with `kubectl rollout undo`.
    meta["annotations"].pop(ANNOTATION_CHANGE_CAUSE, None)
    if revision.note:
        meta["annotations"][ANNOTATION_CHANGE_CAUSE] = revision.note
    return {**body, "metadata": meta, "spec": {**body["spec"], **_asked(body, revision, variant)}}


def _asked(body: dict[str, Any], revision: Revision, variant: str | None) -> dict[str, Any]:
    """Return what of the spec asks for the revision."""
    if variant is None:
        then = {key: value for key, value in revision.predictor.items() if key not in NOT_OF_PODS}
        return {"predictor": _counted(then, body["spec"]["predictor"])}
    words = variant_words(InferenceService.parse(body), variant, revision)
    variants = [
        {**each, "predictor": _counted(words, each.get("predictor") or {})} if each["name"] == variant else each
        for each in body["spec"]["variants"]
    ]
    return {"variants": variants}


def _counted(then: dict[str, Any], present: dict[str, Any]) -> dict[str, Any]:
    """Return a predictor of then with the number of pods of now."""
    return {**then, **{key: value for key, value in present.items() if key in NOT_OF_PODS}}


def rollback_told(before: dict[str, Any], after: InferenceService, entry: Entry) -> list[str]:
    """Return what a person reads after a rollback."""
    number, revision = entry.revision.number, entry.revision.name
    told = [
        f"{subject(after)} asks for revision {number} ({revision}) again, as generation {after.metadata.generation}."
    ]
    if revision != after.status.stable and after.spec.rollout.steps:
        told.append(f"It goes by the service's steps; to pass them: kubectl conch promote{where(after)} --full")
    author = author_of(before, after.variant)
    if author and author != MANAGER:
        told.append(
            f"{author} wrote {noun(after)} before. If that is a GitOps controller, it puts Git's version back"
            " unless Git changes too."
        )
    told.append(f"What comes of it: kubectl conch status {after.metadata.name} -n {after.metadata.namespace}")
    return told
