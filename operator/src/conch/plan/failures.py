"""Failed writes, as reasons why the predictor or a variant does not match the spec."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from conch.api import InferenceService
from conch.api.child_kinds import SHARED
from conch.api.kinds import BACKEND_TRAFFIC_POLICY, Ref
from conch.api.reasons import Reason
from conch.decide import FailedWrite
from conch.plan.actions import ApplyRejected
from conch.traffic.policy import is_policy_required

# Failed attempts in a row from which on an error that may pass is reported.
LASTING: int = 3


def find_unwritten(
    service: InferenceService, rejections: Sequence[ApplyRejected], attempts: Mapping[Ref, int]
) -> dict[str, FailedWrite]:
    """Return why objects of the predictor ("") and of each variant are not written; absent where all are written.

    Only the first rejection of a variant is returned: the others appear when it is fixed. Of taken names it has the
    number of the others.

    Args:
        service: the service.
        rejections: writes that failed, in the order of the plan.
        attempts: consecutive failed writes of an object, with errors that may pass.
    """
    variants = ["", *(variant.name for variant in service.spec.variants)]
    found: dict[str, FailedWrite] = {}
    taken: Counter[str] = Counter()
    for rejection in rejections:
        if rejection.ref.kind == BACKEND_TRAFFIC_POLICY and not is_policy_required(service):
            continue
        lasts = rejection.final or rejection.lasts or attempts.get(rejection.ref, 0) >= LASTING
        why = FailedWrite(rejection.reason, rejection.message, lasts=lasts, final=rejection.final)
        for variant in variants if rejection.ref.kind in SHARED else [_find_variant(service, variants, rejection.ref)]:
            taken[variant] += rejection.reason == Reason.NAME_TAKEN
            known = found.get(variant)
            if known is None or (lasts and not known.lasts):
                found[variant] = why
    return {variant: _with_other_names(why, taken[variant] - 1) for variant, why in found.items()}


def _with_other_names(failure: FailedWrite, others: int) -> FailedWrite:
    """Return a failed write whose message has the number of the variant's other taken names, if it is one itself."""
    if failure.reason != Reason.NAME_TAKEN or not others:
        return failure
    return replace(failure, message=f"{failure.message} Other taken names: {others}.")


def _find_variant(service: InferenceService, variants: Sequence[str], ref: Ref) -> str:
    """The variant of an object, by its name; the predictor's, and what variants left behind that are gone, is ""."""
    tracks = {service.of_variant(variant).track: variant for variant in variants if variant}
    owners = [track for track in tracks if ref.name == track or ref.name.startswith(f"{track}-")]
    return tracks[max(owners, key=len)] if owners else ""
