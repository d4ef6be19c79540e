"""The history: the number of a revision, and which revisions the limit drops."""

from conch.observe import Snapshot


def number_of(snapshot: Snapshot, wanted: str) -> int:
    """Return the wanted revision's number: the newest, also of a revision that returns."""
    newest = max((revision.number for revision in snapshot.revisions.values()), default=0)
    known = snapshot.revisions.get(wanted)
    return newest if known is not None and known.number == newest else newest + 1


def forgotten(snapshot: Snapshot, active: frozenset[str], limit: int) -> frozenset[str]:
    """Return the revisions past the history limit; active ones do not count."""
    past = sorted(
        (r for r in snapshot.revisions.values() if r.name not in active),
        key=lambda r: r.number,
        reverse=True,
    )
    return frozenset(revision.name for revision in past[limit:])
