"""Which rules of the HTTPRoute the match of each variant has, and when they become active. Pure.

A gateway may apply a rule and its backends at different moments. Envoy Gateway names a cluster of Envoy by the rule's
index. Envoy applies a new route before the new cluster is ready, and removes an old cluster before the route to it:
requests of the rule get 503 in between (envoyproxy/gateway#9029). Therefore:

- a new rule is inactive: its backends are in place, and its match is a header that no client sends. It becomes active,
  by a change of its match alone, when every gateway has had the time to apply it;
- a rule whose variant has no match any more becomes inactive, with the predictor's backends;
- a rule keeps its index. Only inactive rules at the end of the route are removed, and only an inactive rule is given
  to another variant; both when every gateway has had the time to apply that it is inactive.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

from conch.api import Match
from conch.api.variants import MAX_VARIANTS
from conch.traffic.observed import ObservedRule, observed_rules

# The header of inactive rules. A client that sends it all the same gets an answer of that rule's backends.
INACTIVE_HEADER: Final = "x-conch-inactive-rule"
# Rules of a slot, and of the predictor: one for HTTP, one for gRPC.
_RULES: Final = 2


@dataclass(frozen=True)
class Slot:
    """Two rules of a route, for HTTP and gRPC, after the predictor's two."""

    track: str = ""  # the prefix of its revisions' names, <service>-<variant>; empty: no variant's
    active: bool = False  # whether a client can send a request that it matches


VACANT: Final = Slot()


def read_slots(route: Mapping[str, Any], service: str) -> tuple[Slot, ...]:
    """Return the slots of a route as it was read from the API server, in the order of their indices.

    Args:
        route: an HTTPRoute.
        service: the name of the service, which is the prefix of the names of the predictor's revisions.
    """
    rules = observed_rules(route)[_RULES:]
    while rules and not any(_track(name, service) for name in rules[-1].weights):
        rules = rules[:-1]  # of another writer
    return tuple(_read(rules[index : index + _RULES], service) for index in range(0, len(rules), _RULES))


def next_slots(seen: Sequence[Slot], matches: Mapping[str, Sequence[Match]], *, settled: bool) -> tuple[Slot, ...]:
    """Return the slots that the route should have next.

    Args:
        seen: the slots that the route has.
        matches: by track, the matches of the variants that should have requests, in the order of the spec.
        settled: whether every gateway has had the time to apply the route as it is.

    >>> next_slots([], {"a": ()}, settled=False)
    (Slot(track='a', active=False),)
    >>> next_slots([Slot("a")], {"a": ()}, settled=True)
    (Slot(track='a', active=True),)
    >>> next_slots([Slot("a", True)], {}, settled=True)
    (Slot(track='', active=False),)
    >>> next_slots([VACANT], {}, settled=True)
    ()
    """
    slots: list[Slot] = []
    for slot in seen:
        known = slot.track in matches and slot.track not in {other.track for other in slots}
        slots.append(Slot(slot.track, slot.active or settled) if known else VACANT)
    free = [index for index, slot in enumerate(seen) if settled and slot == VACANT]
    for track in [track for track in matches if all(slot.track != track for slot in slots)]:
        if free:
            slots[free.pop(0)] = Slot(track)
        elif len(slots) < MAX_VARIANTS:
            slots.append(Slot(track))
    while slots and slots[-1] == VACANT and len(slots) - 1 in free:
        slots.pop()
    return active_slots(matches) if _is_disordered(slots, matches) else tuple(slots)


def active_slots(tracks: Iterable[str]) -> tuple[Slot, ...]:
    """Return the slots of a route that did not exist before: no request can have its old form."""
    return tuple(Slot(track, active=True) for track in tracks)


def _read(rules: Sequence[ObservedRule], service: str) -> Slot:
    tracks = {track for rule in rules for name in rule.weights if (track := _track(name, service))}
    track = tracks.pop() if len(tracks) == 1 else service
    return Slot("" if track == service else track, all(INACTIVE_HEADER not in rule.headers for rule in rules))


def _track(revision: str, service: str) -> str:
    """Return the track of a revision of the service; empty of another Service."""
    track = revision.rpartition("-")[0]
    return track if track == service or track.startswith(f"{service}-") else ""


def _is_disordered(slots: Sequence[Slot], matches: Mapping[str, Sequence[Match]]) -> bool:
    """Whether a request can meet two variants' rules, and would get the one that is later in the spec.

    The Gateway API gives it to the rule with more headers, and between equals to the one with the lower index.
    """
    indices = {slot.track: index for index, slot in enumerate(slots)}
    return any(
        indices[first] > indices[second] and _is_ambiguous(matches[first], matches[second])
        for first, second in combinations([track for track in matches if track in indices], 2)
    )


def _is_ambiguous(ours: Sequence[Match], others: Sequence[Match]) -> bool:
    """Whether one request can have the headers of both, as many of one as of the other."""
    return any(
        len(one) == len(other) and all(one[name] == other[name] for name in one.keys() & other.keys())
        for one in map(_headers, ours)
        for other in map(_headers, others)
    )


def _headers(match: Match) -> dict[str, str]:
    return {header.name: header.value for header in match.headers}
