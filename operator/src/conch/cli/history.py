"""`kubectl conch history`: the revisions of the predictor or of a variant."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from conch.api import InferenceService
from conch.api.kinds import CONTROLLER_REVISION
from conch.cli.cluster import Cluster, run_with_cluster
from conch.cli.options import Access, CommandError, access, service_argument
from conch.cli.printing import Table, Text, print_value, shorten_digest
from conch.cli.status import find_role
from conch.cli.track import describe_subject, format_arguments, format_status_hint, select_track, variant_option
from conch.decide.naming import revision_name
from conch.observe import Revision
from conch.observe.identity import controller_uid, variant_of
from conch_contract import names


@dataclass(frozen=True)
class Entry:
    """A revision, and when it was created."""

    revision: Revision
    created: str


@click.command()
@service_argument
@variant_option
@access
def history(access: Access, service: str, variant: str | None) -> None:
    """List the revisions of SERVICE.

    The author is the field manager that wrote the predictor, such as argocd-controller or kubectl-edit. The note is
    the service's annotation conch.dev/change-cause at that time.
    """

    async def call(cluster: Cluster) -> tuple[InferenceService, list[Entry]]:
        seen, body = await cluster.get_service(service)
        return select_track(seen, variant), await read_entries(cluster, body, variant or "")

    seen, found = run_with_cluster(access, call)
    print_value(access.output, build_history_value(seen, found), build_history_text(seen, found))


async def read_entries(cluster: Cluster, body: dict[str, Any], variant: str = "") -> list[Entry]:
    """Return the revisions of a service's predictor, or of one of its variants, the newest first."""
    meta = body["metadata"]
    found = await cluster.server.list(CONTROLLER_REVISION, cluster.namespace, f"{names.LABEL_SERVICE}={meta['name']}")
    owned = (one for one in found if controller_uid(one) == meta["uid"] and variant_of(one) == variant)
    read = ((Revision.parse(one), one["metadata"]["creationTimestamp"]) for one in owned)
    known = (Entry(revision, created) for revision, created in read if revision is not None)
    return sorted(known, key=lambda entry: entry.revision.number, reverse=True)


def build_history_value(service: InferenceService, found: Sequence[Entry]) -> dict[str, Any]:
    """Return the value for -o json and yaml: all of each revision except its rendered pods."""
    return {
        "name": service.metadata.name,
        "namespace": service.metadata.namespace,
        "variant": service.variant or None,
        "revisions": [
            {
                "number": entry.revision.number,
                "name": entry.revision.name,
                "created": entry.created,
                "author": entry.revision.author or None,
                "note": entry.revision.note or None,
                "models": [
                    {"name": name, "digest": content.digest} for name, content in entry.revision.contents.items()
                ],
                "generation": entry.revision.generation,
                "role": find_role(service, entry.revision.name) or None,
                "predictor": entry.revision.predictor,
            }
            for entry in found
        ],
    }


def build_history_text(service: InferenceService, found: Sequence[Entry]) -> Text:
    """Return the text: a table."""
    if not found:
        return [f"{describe_subject(service)} has no revisions yet."]
    rows = tuple(
        (
            str(entry.revision.number),
            entry.revision.name,
            entry.created,
            entry.revision.author or "-",
            _describe_contents(entry.revision),
            find_role(service, entry.revision.name) or "-",
            entry.revision.note or "-",
        )
        for entry in found
    )
    return [Table(("NUMBER", "REVISION", "CREATED", "AUTHOR", "DIGEST", "ROLE", "NOTE"), rows)]


def _refuse_other_content(service: InferenceService, entry: Entry, found: Sequence[Entry]) -> None:
    """Refuse the rollback to an earlier content of the spec's predictor, which is not in the spec.

    Raises:
        CommandError: the revision is of an earlier content.
    """
    predictor = service.spec.predictor
    same = [e for e in found if e.revision.name == revision_name(service.track, predictor, e.revision.sources)]
    if any(other.revision.number > entry.revision.number for other in same):
        raise CommandError(
            f"revision {entry.revision.number} of {describe_subject(service)} has the spec's predictor with earlier"
            " content of a source that storage.watch follows; restore that content in the store, or set storage.watch"
            " to Report and storageUri to a path that has it"
        )


def _describe_contents(revision: Revision) -> str:
    """Return the digest of a revision's model, or how many models it has."""
    digests = [content.digest for content in revision.contents.values()]
    return shorten_digest(digests[0]) if len(digests) == 1 else f"{len(digests)} models" if digests else "-"


def find_revision(service: InferenceService, found: Sequence[Entry], number: int) -> Entry:
    """Return the revision of a number.

    Raises:
        CommandError: there is none, or the spec has it already.
    """
    name = describe_subject(service)
    entry = next((entry for entry in found if entry.revision.number == number), None)
    if entry is None:
        there = ", ".join(str(one.revision.number) for one in found) or "none"
        raise CommandError(
            f"{name} has no revision {number} (there are: {there}); see: kubectl conch"
            f" history{format_arguments(service)}"
        )
    if entry.revision.name == revision_name(service.track, service.spec.predictor, entry.revision.sources):
        _refuse_other_content(service, entry, found)
        raise CommandError(
            f"the spec of {name} has revision {number} already; if it does not serve, {format_status_hint(service)}"
        )
    return entry
