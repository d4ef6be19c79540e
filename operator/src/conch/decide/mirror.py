"""Whether copies of requests arrive at a shadow, where the gateway does not tell what it can do.

A gateway may accept a mirror and make no copies. Triton's counters of both revisions tell; once they have, nobody
asks again until the spec changes. They count what comes past the gateway too, to the Services: so copies that do not
arrive are a doubt and no certainty, and a shadow that is asked at its own Service looks as if they did.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from conch.api.numbers import percent
from conch.observe import Finding, Snapshot
from conch.observe.measured import Measured
from conch.traffic import mirrors_for_sure

ARRIVING: Final = "Arriving"
MISSING: Final = "Missing"
# Copies that were due before their absence means something: by chance alone it is rarer than one in e^20.
ENOUGH: Final = 20


@dataclass(frozen=True)
class Shadow:
    """A variant that gets copies, and the revisions whose counters tell of it."""

    name: str
    revision: str
    copied: str  # the revision whose requests are copied
    share: Fraction
    known: str | None  # what the status says of it, of this very spec


def shadows(snapshot: Snapshot) -> Iterator[Shadow]:
    """Yield the shadows of which it is not certain that copies arrive."""
    service, status = snapshot.service, snapshot.service.status
    if status.stable is None or mirrors_for_sure(snapshot):
        return
    for variant in service.spec.variants:
        told = next((one for one in status.variants if one.name == variant.name), None)
        if variant.mirror is None or told is None or told.stable is None:
            continue
        if not snapshot.replicas(told.stable):
            continue  # it sleeps, and gets nothing as asked
        known = told.mirror if status.observed_generation == service.metadata.generation else None
        yield Shadow(variant.name, told.stable, status.stable, percent(variant.mirror), known)


def arrival(snapshot: Snapshot, shadow: Shadow) -> str | None:
    """Say whether copies arrive: Arriving, Missing, or None while nobody knows."""
    if shadow.known == ARRIVING:
        return ARRIVING
    asked, copies = (_requests(snapshot, revision) for revision in (shadow.copied, shadow.revision))
    if copies:
        return ARRIVING
    return MISSING if asked * shadow.share >= ENOUGH else shadow.known


def no_copies(shadow: Shadow) -> Finding:
    """What is told of a shadow that gets none."""
    return Finding(
        "MirrorNotArriving",
        f"The gateway has accepted to copy requests to variant {shadow.name}, and none has arrived while"
        f" {shadow.copied} answered many. If these came through the gateway, and not straight to the Service, it makes"
        " no copies: name one that supports mirroring in traffic.gateways, or remove mirror",
    )


def _requests(snapshot: Snapshot, revision: str) -> int:
    return snapshot.measured.get(revision, Measured()).history.since(0.0).requests
