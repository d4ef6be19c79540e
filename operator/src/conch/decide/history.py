"""The history: the number of a revision, and which revisions the limit drops."""

from conch.observe import Track


def number_of(track: Track, wanted: str) -> int:
    """Return the wanted revision's number: the newest, also of a revision that returns."""
    newest = max((revision.number for revision in track.revisions.values()), default=0)
    known = track.revisions.get(wanted)
    return newest if known is not None and known.number == newest else newest + 1


def forgotten(track: Track, active: frozenset[str], limit: int) -> frozenset[str]:
    """Return the revisions past the history limit; active ones do not count."""
    past = sorted(
        (r for r in track.revisions.values() if r.name not in active),
        key=lambda r: r.number,
        reverse=True,
    )
    return frozenset(revision.name for revision in past[limit:])
