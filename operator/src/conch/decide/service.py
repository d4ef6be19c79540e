"""The service as a whole: a decision for the predictor and one for each variant, and what they share.

A variant is to every other file of this room a service of its own (`Snapshot.tracks`); only here it is not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from conch.api import duration_seconds
from conch.api._base import is_duration
from conch.decide.admission import with_promises
from conch.decide.mirror import MISSING, arrival, no_copies, shadows
from conch.decide.rollout import Decision, decide_one
from conch.decide.scale_to_zero import may_rest
from conch.observe import Finding, Snapshot
from conch.traffic import Way, no_mirror, route_wait, still_reached

_NO_READY_PODS: Final = Finding(
    "NoReadyPods", "No pod of the variant is ready; its share goes to the predictor until one is."
)


@dataclass(frozen=True)
class Decisions:
    """What shall be."""

    tracks: tuple[Decision, ...]  # the predictor's, then the variants' in the spec's order; as Snapshot.tracks
    ways: tuple[Way, ...]  # which requests go to whom
    kept: frozenset[str]  # revisions that nobody asks for any more, and that a request may still reach
    dropped: frozenset[str]  # revisions of variants that are gone
    mirrors: Mapping[str, str]  # by shadow, whether copies arrive, where only counters can tell
    route_wait: float | None  # seconds until the route should be written again, though nothing happens

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
        waits = (self.route_wait, *(decision.wait for decision in self.tracks))
        return min((wait for wait in waits if wait is not None), default=None)


def decide(snapshot: Snapshot) -> Decisions:
    """Decide what of the service lives, and how the requests are shared out."""
    tracks, left = with_promises(snapshot).tracks, snapshot.removed_tracks
    found = {shadow: said for shadow in shadows(snapshot) if (said := arrival(snapshot, shadow)) is not None}
    missing = {shadow.name: no_copies(shadow) for shadow, said in found.items() if said == MISSING}
    decisions: list[Decision] = []
    for track in tracks:
        # Once one has taken its GPUs, what is left is for the next look to tell.
        known = None if any(decision.takes_gpus for decision in decisions) else track.capacity
        decision, trouble = decide_one(track.with_capacity(known)), missing.get(track.service.variant)
        decisions.append(replace(decision, in_force=replace(decision.in_force, doubt=trouble)))
    kept = frozenset(name for gone in left for name in still_reached(gone))
    falls_back = any(map(tracks[0].ready, decisions[0].shares))
    silent = {t.service.variant for t, d in zip(tracks, decisions, strict=True) if falls_back and _is_silent(t, d)}
    ways = tuple(
        Way(track.service, decision.serving, decision.shares, _longest_request(track, decision))
        for track, decision in zip(tracks, decisions, strict=True)
        if decision.admitted and no_mirror(track) is None and track.service.variant not in silent
    )
    return Decisions(
        tracks=tuple(
            _without_share(decision) if track.service.variant in silent else decision
            for track, decision in zip(tracks, decisions, strict=True)
        ),
        ways=ways,
        kept=kept,
        dropped=frozenset(name for gone in left for name in gone.revisions) - kept,
        mirrors={shadow.name: said for shadow, said in found.items()},
        route_wait=route_wait(snapshot, ways),
    )


def _without_share(decision: Decision) -> Decision:
    return replace(decision, in_force=replace(decision.in_force, trouble=_NO_READY_PODS))


def _is_silent(track: Snapshot, decision: Decision) -> bool:
    """Whether this is a weighted variant that takes requests and has no ready pod.

    Who chose a variant by a header gets an error, and not the answer of another model.
    """
    asked = track.service.asked
    if asked is None or not asked.weight or not decision.admitted:
        return False
    return not any(track.ready(name) or may_rest(track, decision.rollout, name) for name in decision.shares)


def _longest_request(track: Snapshot, decision: Decision) -> str | None:
    """Return the maximum of longestRequest over the revisions that have requests; None: no revision sets one."""
    predictors = {name: revision.predictor for name, revision in track.revisions.items()}
    predictors.setdefault(decision.wanted, track.service.spec.predictor.to_wire())
    durations = [str(predictors[name].get("longestRequest") or "") for name in decision.shares if name in predictors]
    return max(filter(is_duration, durations), key=duration_seconds, default=None)
