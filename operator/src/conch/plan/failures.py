"""What failed writes mean for the service: why its predictor or a variant is not as the spec asks."""

from collections.abc import Mapping, Sequence

from conch.api import InferenceService
from conch.api.child_kinds import SHARED
from conch.api.kinds import BACKEND_TRAFFIC_POLICY, Ref
from conch.decide import FailedWrite
from conch.plan.actions import Refusal
from conch.traffic.policy import is_policy_required

# Failed attempts in a row from which on an error that may pass is reported.
LASTING: int = 3


def unwritten(
    service: InferenceService, refusals: Sequence[Refusal], attempts: Mapping[Ref, int]
) -> dict[str, FailedWrite]:
    """Return why objects of the predictor ("") and of each variant are not written; who lacks none is absent.

    The first refusal speaks for all of a variant: mending it brings the next to light.

    Args:
        service: the service.
        refusals: writes that failed, in the order of the plan.
        attempts: how often in a row the write of an object has failed in a way that may pass.
    """
    variants = ["", *(variant.name for variant in service.spec.variants)]
    found: dict[str, FailedWrite] = {}
    for refusal in refusals:
        if refusal.ref.kind == BACKEND_TRAFFIC_POLICY and not is_policy_required(service):
            continue
        lasts = refusal.final or refusal.lasts or attempts.get(refusal.ref, 0) >= LASTING
        why = FailedWrite(refusal.reason, refusal.message, lasts=lasts, final=refusal.final)
        for variant in variants if refusal.ref.kind in SHARED else [_variant(service, variants, refusal.ref)]:
            known = found.get(variant)
            if known is None or (lasts and not known.lasts):
                found[variant] = why
    return found


def _variant(service: InferenceService, variants: Sequence[str], ref: Ref) -> str:
    """The variant of an object, by its name; the predictor's, and what variants left behind that are gone, is ""."""
    tracks = {service.of_variant(variant).track: variant for variant in variants if variant}
    owners = [track for track in tracks if ref.name == track or ref.name.startswith(f"{track}-")]
    return tracks[max(owners, key=len)] if owners else ""
