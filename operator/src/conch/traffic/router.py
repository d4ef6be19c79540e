"""The interface of the room: what a way of splitting requests must answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from conch.api import InferenceService
from conch.observe import Finding, Snapshot

Shares = Mapping[str, int]
"""Percent of the requests by revision; they add up to 100, and a revision without requests is absent."""


def largest(shares: Shares) -> str:
    """Return the revision that gets all where a share is none or all."""
    return max(shares, key=lambda name: shares[name])


@dataclass(frozen=True)
class Way:
    """The predictor or a variant, with its requests shared out among its revisions."""

    service: InferenceService  # as that variant
    serving: str  # the revision that carries it
    shares: Shares
    longest_request: str | None = None  # of the revisions with shares, a duration; None: no revision sets one


@dataclass(frozen=True)
class InForce:
    """What the network does, as far as the snapshot shows."""

    told: Shares = field(default_factory=dict)  # the split that it was told and has taken up; empty: none
    achieved: Shares = field(default_factory=dict)  # what that comes to
    reachable: frozenset[str] = frozenset()  # revisions that a request may still reach: their pods must stay
    trouble: Finding | None = None  # what keeps the network from doing as it is told
    unsupported: Finding | None = None  # what else the service asks and the network cannot do; the split is not held up
    doubt: Finding | None = None  # what may be otherwise than asked, as far as anybody can tell; it holds nothing up


class TrafficRouter(Protocol):
    """A way to share requests out among the revisions of one service."""

    atomic: bool
    """Whether one write moves all requests from one revision to another: the write of the root Service."""

    def selected(self, way: Way) -> str | None:
        """Return the revision that the root Service selects; None: it selects all."""

    def in_force(self, snapshot: Snapshot) -> InForce:
        """Return what of it has come about."""

    def follows(self, told: Shares, shares: Shares) -> bool:
        """Whether a split that is in force is as near to `shares` as this way can come."""

    def pods(self, weight: int, capacity: int) -> int:
        """Return the ready pods that a revision needs before it may get `weight` percent of the requests.

        Args:
            weight: the share, 0 to 100.
            capacity: the pods that carry all of the service's requests.
        """
