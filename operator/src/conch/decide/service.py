"""The service as a whole: a decision for the predictor and one for each variant, and what they share.

A variant is to every other file of this room a service of its own (`World.tracks`); only here it is not.
"""

from dataclasses import dataclass

from conch.decide.rollout import Decision, decide_one
from conch.observe import World
from conch.traffic import Way, no_mirror, still_reached


@dataclass(frozen=True)
class Decisions:
    """What shall be."""

    tracks: tuple[Decision, ...]  # the predictor's, then the variants' in the spec's order; as World.tracks
    ways: tuple[Way, ...]  # which requests go to whom
    kept: frozenset[str]  # revisions that nobody asks for any more, and that a request may still reach
    dropped: frozenset[str]  # revisions of variants that are gone

    @property
    def main(self) -> Decision:
        """The predictor's."""
        return self.tracks[0]

    @property
    def living(self) -> frozenset[str]:
        """The revisions whose objects stay."""
        return self.kept.union(one.name for decision in self.tracks for one in decision.living)

    @property
    def forgotten(self) -> frozenset[str]:
        """The revisions whose records go."""
        return self.dropped.union(*(decision.forgotten for decision in self.tracks))

    @property
    def wait(self) -> float | None:
        """Seconds after which to look again, if nothing happens; None: events alone are awaited."""
        return min((decision.wait for decision in self.tracks if decision.wait is not None), default=None)


def decide(world: World) -> Decisions:
    """Decide what of the service lives, and how the requests are shared out."""
    tracks = world.tracks
    decisions = tuple(decide_one(track) for track in tracks)
    kept = frozenset(name for left in world.left for name in still_reached(left))
    return Decisions(
        tracks=decisions,
        ways=tuple(
            Way(track.service, decision.serving, decision.shares)
            for track, decision in zip(tracks, decisions, strict=True)
            if decision.admitted and no_mirror(track) is None
        ),
        kept=kept,
        dropped=frozenset(name for left in world.left for name in left.revisions) - kept,
    )
