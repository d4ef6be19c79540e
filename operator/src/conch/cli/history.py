"""`kubectl conch history`: which revisions there were, of the predictor or of a variant."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from conch.api import InferenceService
from conch.api.kinds import CONTROLLER_REVISION
from conch.cli.cluster import Cluster, ask
from conch.cli.options import Access, Refused, access, service_argument
from conch.cli.printing import Table, Text, short, show
from conch.cli.status import role
from conch.cli.track import chosen, look, subject, variant_option, where
from conch.decide.naming import revision_name
from conch.observe import Revision
from conch.observe.identity import controller_uid, variant_of
from conch_contract import names


@dataclass(frozen=True)
class Entry:
    """A revision, and when it was made."""

    revision: Revision
    made: str


@click.command()
@service_argument
@variant_option
@access
def history(access: Access, service: str, variant: str | None) -> None:
    """List the revisions of SERVICE.

    The author is the field manager that wrote the predictor, such as argocd-controller or kubectl-edit. The note is
    the service's annotation conch.dev/change-cause at that time.
    """

    async def question(cluster: Cluster) -> tuple[InferenceService, list[Entry]]:
        seen, body = await cluster.service(service)
        return chosen(seen, variant), await entries(cluster, body, variant or "")

    seen, found = ask(access, question)
    show(access.output, history_value(seen, found), history_text(seen, found))


async def entries(cluster: Cluster, body: dict[str, Any], variant: str = "") -> list[Entry]:
    """Read the revisions of this very service's predictor, or of one of its variants, the newest first."""
    meta = body["metadata"]
    found = await cluster.server.list(CONTROLLER_REVISION, cluster.namespace, f"{names.LABEL_SERVICE}={meta['name']}")
    ours = (one for one in found if controller_uid(one) == meta["uid"] and variant_of(one) == variant)
    read = ((Revision.parse(one), one["metadata"]["creationTimestamp"]) for one in ours)
    known = (Entry(revision, made) for revision, made in read if revision is not None)
    return sorted(known, key=lambda entry: entry.revision.number, reverse=True)


def history_value(service: InferenceService, found: Sequence[Entry]) -> dict[str, Any]:
    """Return all that is known of each revision, but how its pods were rendered."""
    return {
        "name": service.metadata.name,
        "namespace": service.metadata.namespace,
        "variant": service.variant or None,
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
        return [f"{subject(service)} has no revisions yet."]
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
    name = subject(service)
    entry = next((entry for entry in found if entry.revision.number == number), None)
    if entry is None:
        there = ", ".join(str(one.revision.number) for one in found) or "none"
        raise Refused(
            f"{name} has no revision {number} (there are: {there}); see: kubectl conch history{where(service)}"
        )
    if entry.revision.name == revision_name(service.track, service.spec.predictor):
        raise Refused(f"{name} asks for revision {number} already; where it does not serve, {look(service)}")
    return entry
