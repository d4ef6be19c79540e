"""The history: which number a revision has in it, and which ones the limit forgets."""

from conch.observe import Snapshot


def number_of(snapshot: Snapshot, wanted: str) -> int:
    """The wanted revision's place in the history: the newest, also when it returns from the past."""
    newest = max((revision.number for revision in snapshot.revisions.values()), default=0)
    known = snapshot.revisions.get(wanted)
    return newest if known is not None and known.number == newest else newest + 1


def forgotten(snapshot: Snapshot, living: frozenset[str], limit: int) -> frozenset[str]:
    """Revisions past the history limit, oldest first; the living do not count."""
    past = sorted(
        (r for r in snapshot.revisions.values() if r.name not in living),
        key=lambda r: r.number,
        reverse=True,
    )
    return frozenset(revision.name for revision in past[limit:])
