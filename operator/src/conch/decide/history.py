"""The history: which number a revision has in it, and which ones the limit forgets."""

from conch.observe import World


def number_of(world: World, wanted: str) -> int:
    """The wanted revision's place in the history: the newest, also when it returns from the past."""
    newest = max((revision.number for revision in world.revisions.values()), default=0)
    known = world.revisions.get(wanted)
    return newest if known is not None and known.number == newest else newest + 1


def forgotten(world: World, living: frozenset[str], limit: int) -> frozenset[str]:
    """Revisions past the history limit, oldest first; the living do not count."""
    past = sorted(
        (r for r in world.revisions.values() if r.name not in living),
        key=lambda r: r.number,
        reverse=True,
    )
    return frozenset(revision.name for revision in past[limit:])
