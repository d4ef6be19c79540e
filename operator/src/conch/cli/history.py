"""`kubectl conch history` and `rollback`: which revisions there were, and going back to one of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import click

from conch.api import InferenceService
from conch.api.kinds import CONTROLLER_REVISION, INFERENCE_SERVICE
from conch.api.names import ANNOTATION_CHANGE_CAUSE
from conch.cli.cluster import MANAGER, Cluster, ask
from conch.cli.options import Access, Refused, access
from conch.cli.printing import Table, Text, short, show
from conch.cli.status import role
from conch.decide.naming import NOT_OF_PODS, revision_name
from conch.observe import Revision
from conch.observe.trim import author_of
from conch.observe.world import controller_uid
from conch.write import CallError
from conch_contract import names

_TRIES: Final = 10  # against an operator that writes the status meanwhile


@dataclass(frozen=True)
class Entry:
    """A revision, and when it was made."""

    revision: Revision
    made: str


@click.command()
@click.argument("service")
@access
def history(access: Access, service: str) -> None:
    """List the revisions of SERVICE.

    The author is the field manager that wrote the predictor, such as argocd-controller or kubectl-edit. The note is
    the service's annotation conch.dev/change-cause at that time.
    """

    async def question(cluster: Cluster) -> tuple[InferenceService, list[Entry]]:
        seen, body = await cluster.service(service)
        return seen, await entries(cluster, body)

    seen, found = ask(access, question)
    show(access.output, history_value(seen, found), history_text(seen, found))


@click.command()
@click.argument("service")
@click.option("--to", "number", type=click.IntRange(min=1), required=True, help="The number that `history` shows.")
@access
def rollback(access: Access, service: str, number: int) -> None:
    """Go back to an earlier revision of SERVICE.

    spec.predictor is replaced, as you: with your rights, refused if anybody changed the service meanwhile. What sets
    the number of pods (minReplicas, maxReplicas, autoscaling) stays as it is now. It is a change like any other:
    it goes by the service's own steps.
    """

    async def question(cluster: Cluster) -> tuple[dict[str, Any], dict[str, Any], Entry]:
        seen, body = await cluster.service(service)
        entry = find(seen, await entries(cluster, body), number)
        return body, await replace(cluster, body, entry.revision), entry

    before, after, entry = ask(access, question)
    told = rollback_told(before, InferenceService.parse(after), entry)
    meta = after["metadata"]
    value = {
        "service": service,
        "namespace": meta["namespace"],
        "revision": entry.revision.name,
        "number": number,
        "generation": meta["generation"],
        "message": " ".join(told),
    }
    show(access.output, value, told)


async def replace(cluster: Cluster, body: dict[str, Any], revision: Revision) -> dict[str, Any]:
    """Write the rollback over the service as it was read.

    The API server refuses it if anything of the object was written since. Where that was not the spec (the operator
    tells its status many times in a rollout), it is written over what is there now.

    Raises:
        CallError: the spec was changed meanwhile, or the API server says no.
    """
    meta = body["metadata"]
    for _ in range(_TRIES):
        try:
            return await cluster.server.replace(INFERENCE_SERVICE, rolled_back(body, revision), MANAGER)
        except CallError as error:
            if error.code != 409:
                raise
            refused = error
            _, body = await cluster.service(meta["name"])
        if (body["metadata"]["uid"], body["metadata"]["generation"]) != (meta["uid"], meta["generation"]):
            break
    raise refused


async def entries(cluster: Cluster, body: dict[str, Any]) -> list[Entry]:
    """Read the revisions of this very service, the newest first."""
    meta = body["metadata"]
    found = await cluster.server.list(CONTROLLER_REVISION, cluster.namespace, f"{names.LABEL_SERVICE}={meta['name']}")
    ours = (one for one in found if controller_uid(one) == meta["uid"])
    read = (Entry(Revision.parse(one), one["metadata"]["creationTimestamp"]) for one in ours)
    return sorted(read, key=lambda entry: entry.revision.number, reverse=True)


def history_value(service: InferenceService, found: Sequence[Entry]) -> dict[str, Any]:
    """Return all that is known of each revision, but how its pods were rendered."""
    return {
        "name": service.metadata.name,
        "namespace": service.metadata.namespace,
        "revisions": [
            {
                "number": entry.revision.number,
                "name": entry.revision.name,
                "made": entry.made,
                "author": entry.revision.author or None,
                "note": entry.revision.note or None,
                "digest": entry.revision.digest or None,
                "generation": entry.revision.generation,
                "role": role(service, entry.revision.name) or None,
                "predictor": entry.revision.predictor,
            }
            for entry in found
        ],
    }


def history_text(service: InferenceService, found: Sequence[Entry]) -> Text:
    """Return the table."""
    if not found:
        return [f"{service.metadata.name} has no revisions yet."]
    rows = tuple(
        (
            str(entry.revision.number),
            entry.revision.name,
            entry.made,
            entry.revision.author or "-",
            short(entry.revision.digest) or "-",
            role(service, entry.revision.name) or "-",
            entry.revision.note or "-",
        )
        for entry in found
    )
    return [Table(("NUMBER", "REVISION", "MADE", "AUTHOR", "DIGEST", "ROLE", "NOTE"), rows)]


def find(service: InferenceService, found: Sequence[Entry], number: int) -> Entry:
    """Return the revision of that number.

    Raises:
        Refused: there is none, or the spec asks for it already.
    """
    name, namespace = service.metadata.name, service.metadata.namespace
    entry = next((entry for entry in found if entry.revision.number == number), None)
    if entry is None:
        there = ", ".join(str(one.revision.number) for one in found) or "none"
        raise Refused(
            f"{name} has no revision {number} (there are: {there}); see: kubectl conch history {name} -n {namespace}"
        )
    if entry.revision.name == revision_name(name, service.spec.predictor):
        raise Refused(
            f"{name} asks for revision {number} already; where it does not serve, see: kubectl conch status {name}"
            f" -n {namespace}"
        )
    return entry


def rolled_back(body: dict[str, Any], revision: Revision) -> dict[str, Any]:
    """Return the service as it shall be: that revision's predictor and note, the present number of pods.

    A revision is what its pods are. How many there are is a matter of today: going back to a model of last month
    must not bring last month's capacity with it.
    """
    present = body["spec"]["predictor"]
    then = {key: value for key, value in revision.predictor.items() if key not in NOT_OF_PODS}
    now = {key: value for key, value in present.items() if key in NOT_OF_PODS}
    meta = {**body["metadata"], "annotations": dict(body["metadata"].get("annotations") or {})}
    # The note travels with the revision, as it does with `kubectl rollout undo`.
    meta["annotations"].pop(ANNOTATION_CHANGE_CAUSE, None)
    if revision.note:
        meta["annotations"][ANNOTATION_CHANGE_CAUSE] = revision.note
    return {**body, "metadata": meta, "spec": {**body["spec"], "predictor": {**then, **now}}}


def rollback_told(before: dict[str, Any], after: InferenceService, entry: Entry) -> list[str]:
    """Return what a person reads after a rollback."""
    name, namespace = after.metadata.name, after.metadata.namespace
    number, revision = entry.revision.number, entry.revision.name
    told = [f"{name} asks for revision {number} ({revision}) again, as generation {after.metadata.generation}."]
    if revision != after.status.stable and after.spec.rollout.steps:
        told.append(f"It goes by the service's steps; to pass them: kubectl conch promote {name} -n {namespace} --full")
    author = author_of(before)
    if author and author != MANAGER:
        told.append(
            f"{author} wrote the predictor before. If that is a GitOps controller, it puts Git's version back"
            " unless Git changes too."
        )
    told.append(f"What comes of it: kubectl conch status {name} -n {namespace}")
    return told
