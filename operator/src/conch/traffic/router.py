"""The interface of a router, which shares the requests of a track out among its revisions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from conch.api import InferenceService
from conch.observe import Finding, Track

Shares = Mapping[str, int]
"""Percent of the requests by revision; they add up to 100, and a revision without requests is absent."""


def largest(shares: Shares) -> str:
    """Return the revision that gets all requests where a share is none or all."""
    return max(shares, key=lambda name: shares[name])


@dataclass(frozen=True)
class TrackRoute:
    """The predictor or a variant, with its requests shared out among its revisions."""

    service: InferenceService  # as that variant
    serving: str  # the revision that carries it
    shares: Shares
    longest_request: str | None = None  # of the revisions with shares, a duration; None: no revision sets one
    swapped_workloads: Mapping[str, str] = field(default_factory=dict)
    """By revision, the workload whose pods all get its requests, whatever their label."""


@dataclass(frozen=True)
class ObservedTraffic:
    """The traffic as the track shows it."""

    shares: Shares = field(default_factory=dict)  # the split that the network has accepted; empty: none
    observed_weights: Shares = field(default_factory=dict)  # percent of the requests that it comes to
    reachable: frozenset[str] = frozenset()  # revisions that a request may still reach: their pods must stay
    obstacle: Finding | None = None  # why the network has not accepted the desired split
    unsupported: Finding | None = None  # what else of the spec the network cannot do; the split does not depend on it
    uncertainty: Finding | None = None  # what may differ from the spec, and no component reports; it holds nothing up


class TrafficRouter(Protocol):
    """A mechanism that shares requests out among the revisions of one track."""

    atomic: bool
    """Whether one write moves all requests from one revision to another: the write of the root Service."""

    def select(self, track_route: TrackRoute) -> str | None:
        """Return the revision that the root Service selects; None: it selects all."""

    def observe(self, track: Track) -> ObservedTraffic:
        """Return the traffic as the track shows it."""

    def verify_weights(self, observed: Shares, desired: Shares) -> bool:
        """Whether the observed split is as near to the desired one as this mechanism can come."""

    def pods(self, weight: int, capacity: int) -> int:
        """Return the ready pods that a revision needs before it may get `weight` percent of the requests.

        Args:
            weight: the share, 0 to 100.
            capacity: the pods that carry all of the service's requests.
        """
