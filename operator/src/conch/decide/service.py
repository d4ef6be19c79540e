"""The service as a whole: a decision for each track, and what the tracks share.

To every other module of this package a variant is a service of its own (`Snapshot.tracks`); only here it is not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from conch.api import duration_seconds
from conch.api._base import is_duration
from conch.api.reasons import Reason
from conch.decide.admission import reserve_own_pods
from conch.decide.mirror import MISSING, arrival, no_copies, shadows
from conch.decide.scale_to_zero import may_scale_to_zero
from conch.decide.track import Decision, decide_track
from conch.observe import Finding, Snapshot
from conch.traffic import TrackRoute, no_mirror, route_wait, still_reached

_NO_READY_PODS: Final = Finding(
    Reason.NO_READY_PODS, "No pod of the variant is ready; its share goes to the predictor until one is."
)


@dataclass(frozen=True)
class Decisions:
    """The decisions for all tracks, and for the objects that they share."""

    tracks: tuple[Decision, ...]  # the predictor's, then the variants' in the spec's order
    track_routes: tuple[TrackRoute, ...]  # of the tracks that get requests
    kept: frozenset[str]  # revisions of removed variants that a request may still reach
    dropped: frozenset[str]  # the other revisions of removed variants
    mirrors: Mapping[str, str]  # by shadow, whether copies arrive, where only counters show it
    route_wait: float | None  # seconds until the route is written again without an event

    @property
    def main(self) -> Decision:
        """The predictor's."""
        return self.tracks[0]

    @property
    def active_revisions(self) -> frozenset[str]:
        """The revisions whose objects stay, and those with whose pods others are served."""
        revisions = (workload.revisions for each in self.tracks for workload in each.workloads)
        return self.active_workloads.union(*revisions)

    @property
    def active_workloads(self) -> frozenset[str]:
        """The workloads whose objects stay."""
        return self.kept.union(workload.name for each in self.tracks for workload in each.workloads)

    @property
    def forgotten(self) -> frozenset[str]:
        """The revisions whose records go."""
        return self.dropped.union(*(decision.forgotten for decision in self.tracks))

    @property
    def wait(self) -> float | None:
        """Seconds until the next reconcile without an event; None: an event is awaited."""
        waits = (self.route_wait, *(decision.wait for decision in self.tracks))
        return min((wait for wait in waits if wait is not None), default=None)


def decide(snapshot: Snapshot) -> Decisions:
    """Decide which revisions have pods, and how the requests are shared out."""
    removed = snapshot.removed_tracks
    found = {shadow: result for shadow in shadows(snapshot) if (result := arrival(snapshot, shadow)) is not None}
    missing = {shadow.name: no_copies(shadow) for shadow, result in found.items() if result == MISSING}
    decisions: list[Decision] = []
    for track in reserve_own_pods(snapshot).tracks:
        # Once a track has taken its GPUs, the next reconcile counts what is left.
        capacity = None if any(decision.takes_gpus for decision in decisions) else track.capacity
        decision = decide_track(replace(track, capacity=capacity))
        traffic = replace(decision.traffic, uncertainty=missing.get(track.service.variant))
        decisions.append(replace(decision, traffic=traffic))
    kept = frozenset(name for gone in removed for name in still_reached(gone))
    has_fallback = any(map(decisions[0].track.ready, decisions[0].shares))
    unready = {each.track.service.variant for each in decisions if has_fallback and _is_unready(each)}
    track_routes = tuple(
        TrackRoute(each.track.service, each.serving, each.shares, _longest_request(each))
        for each in decisions
        if each.admitted and no_mirror(each.track) is None and each.track.service.variant not in unready
    )
    return Decisions(
        tracks=tuple(_without_share(each) if each.track.service.variant in unready else each for each in decisions),
        track_routes=track_routes,
        kept=kept,
        dropped=frozenset(name for gone in removed for name in gone.revisions) - kept,
        mirrors={shadow.name: result for shadow, result in found.items()},
        route_wait=route_wait(snapshot, track_routes),
    )


def _without_share(decision: Decision) -> Decision:
    return replace(decision, traffic=replace(decision.traffic, obstacle=_NO_READY_PODS))


def _is_unready(decision: Decision) -> bool:
    """Whether this is a weighted variant that takes requests and has no ready pod.

    A client that selects a variant by a header gets an error, and not the answer of another model.
    """
    track = decision.track
    variant = track.service.variant_spec
    if variant is None or not variant.weight or not decision.admitted:
        return False
    return not any(track.ready(name) or may_scale_to_zero(track, decision.rollout, name) for name in decision.shares)


def _longest_request(decision: Decision) -> str | None:
    """Return the maximum of longestRequest over the revisions that have requests; None: no revision sets one."""
    predictors = {name: revision.predictor for name, revision in decision.track.revisions.items()}
    predictors.setdefault(decision.wanted, decision.track.service.spec.predictor.to_wire())
    durations = [str(predictors[name].get("longestRequest") or "") for name in decision.shares if name in predictors]
    return max(filter(is_duration, durations), key=duration_seconds, default=None)
