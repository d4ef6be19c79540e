"""Whether copies of requests arrive at a shadow, where the gateway's class does not list its features.

A gateway may accept a mirror and make no copies. Triton's counters of both revisions show it; once they have, they
are not read again until the spec changes. They also count requests that reach the Services without the gateway: so
missing copies are uncertain, and a shadow that gets requests at its own Service seems to get copies.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from conch.api.numbers import percent
from conch.api.reasons import Reason
from conch.observe import Finding, Snapshot
from conch.observe.measured import Measured
from conch.traffic import mirrors_for_sure

ARRIVING: Final = "Arriving"
MISSING: Final = "Missing"
# Copies that were due before their absence means something: by chance alone it is rarer than one in e^20.
ENOUGH: Final = 20


@dataclass(frozen=True)
class Shadow:
    """A variant that gets copies, and the revisions whose counters show it."""

    name: str
    revision: str
    copied: str  # the revision whose requests are copied
    share: Fraction
    known: str | None  # the result in the status for this generation of the spec


def shadows(snapshot: Snapshot) -> Iterator[Shadow]:
    """Yield the shadows of which it is not certain that copies arrive."""
    service, status = snapshot.service, snapshot.service.status
    if status.stable is None or mirrors_for_sure(snapshot):
        return
    for variant in service.spec.variants:
        known = next((one for one in status.variants if one.name == variant.name), None)
        if variant.mirror is None or known is None or known.stable is None:
            continue
        if not snapshot.replicas(snapshot.workload_of(known.stable)):
            continue  # it is scaled to zero, and gets no copies
        result = known.mirror if status.observed_generation == service.metadata.generation else None
        yield Shadow(variant.name, known.stable, status.stable, percent(variant.mirror), result)


def arrival(snapshot: Snapshot, shadow: Shadow) -> str | None:
    """Return whether copies arrive: Arriving, Missing, or None while it is not known."""
    if shadow.known == ARRIVING:
        return ARRIVING
    requests, copies = (_requests(snapshot, revision) for revision in (shadow.copied, shadow.revision))
    if copies:
        return ARRIVING
    return MISSING if requests * shadow.share >= ENOUGH else shadow.known


def no_copies(shadow: Shadow) -> Finding:
    """Return the finding for a shadow that gets no copies."""
    return Finding(
        Reason.MIRROR_NOT_ARRIVING,
        f"The gateway has accepted the mirror to variant {shadow.name}, and no copy has arrived while"
        f" {shadow.copied} answered many requests. If these came through the gateway, and not straight to the Service,"
        " it makes no copies: name one that supports mirroring in traffic.gateways, or remove mirror",
    )


def _requests(snapshot: Snapshot, revision: str) -> int:
    return snapshot.measured.get(revision, Measured()).history.since(0.0).requests
