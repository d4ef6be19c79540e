"""The events of a status write: what changed between two statuses, one event of a kind for each change."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from conch.api import Admission, ConditionType, ModelWarning, RolloutPhase, Status
from conch.api.analysis import Verdict
from conch.api.names import StrategyName
from conch.api.reasons import Reason
from conch.decide.rollout.request import REFUSED
from conch.decide.status.revisions import FAILING


@dataclass(frozen=True)
class Event:
    """One line of `kubectl describe`."""

    type: Literal["Normal", "Warning"]
    reason: str
    action: str
    note: str


def build_events(before: Status, after: Status) -> tuple[Event, ...]:
    """Return what happened between two statuses, in the order in which it did."""
    variants = [variant.name for variant in after.variants]
    by_variant = [(name, _of_track(before.of_variant(name), after.of_variant(name))) for name in variants]
    return (
        *_of_track(before.of_variant(""), after.of_variant("")),
        *(replace(event, note=f"Variant {name}: {event.note}") for name, own in by_variant for event in own),
        *_warnings(before, after),
        *_became_ready(before, after),
    )


def _of_track(before: Status, after: Status) -> list[Event]:
    """Return the events of the predictor, or of a variant."""
    return [
        *_revisions(before, after),
        *_images(before, after),
        *_model_warnings(before, after),
        *_request(before, after),
        *_rollout(before, after),
    ]


def _request(before: Status, after: Status) -> list[Event]:
    """A request that is refused."""
    now = after.request
    was = before.request
    if now is None or now.state != REFUSED or (was is not None and (was.text, was.state) == (now.text, now.state)):
        return []
    return [Event("Warning", Reason.REQUEST_REFUSED, "Request", f"The request {now.text!r} is refused. {now.message}.")]


def _revisions(before: Status, after: Status) -> list[Event]:
    known = {revision.name for revision in before.revisions}
    found = [
        Event("Normal", Reason.REVISION_CREATED, "Create", f"Revision {r.number} is {r.name}.")
        for r in after.revisions
        if r.name not in known
    ]
    if before.stable and after.stable and before.stable != after.stable:
        note = f"Requests go to revision {after.stable}; {before.stable} drains and retires."
        found.append(Event("Normal", Reason.PROMOTED, "Promote", note))
    return found


def _images(before: Status, after: Status) -> list[Event]:
    """Revisions whose pods run several images now."""
    return [
        Event(
            "Warning",
            Reason.IMAGES_DIFFER,
            "Start",
            f"Pods of {revision.name} run different images: {', '.join(revision.images)}. The tag of the image has been"
            " moved. Name the image by its digest, or delete the pods of the older image.",
        )
        for revision in after.revisions
        for known in (before.revision(revision.name),)
        if len(revision.images) > 1 and (known is None or known.images != revision.images)
    ]


def _model_warnings(before: Status, after: Status) -> list[Event]:
    """Warnings of models that the status did not have; those about requests that fail are Warning events."""
    return [
        Event("Warning" if warning.reason in FAILING else "Normal", warning.reason, "Load", note)
        for revision in after.revisions
        for model in revision.models
        for warning in model.warnings
        if warning not in _known_warnings(before, revision.name, model.name)
        for note in (f"Model {model.name} of {revision.name}: {warning.message}",)
    ]


def _known_warnings(before: Status, revision: str, model: str) -> tuple[ModelWarning, ...]:
    known = before.revision(revision)
    return tuple(warning for one in (known.models if known else ()) if one.name == model for warning in one.warnings)


def _rollout(before: Status, after: Status) -> list[Event]:
    """Shares that moved, pauses, and the end of a candidate that failed."""
    was, now = before.rollout, after.rollout
    if now is None:
        return []
    same = was is not None and was.revision == now.revision
    weight = was.weight if was is not None and same else 0
    found = []
    if now.weight > weight:
        found.append(
            Event("Normal", Reason.WEIGHT_CHANGED, "Shift", f"{now.weight} % of the requests go to {now.revision}.")
        )
    if now.admission == Admission.INSUFFICIENT and not (
        was is not None and same and was.admission == Admission.INSUFFICIENT
    ):
        is_swap = now.strategy in {StrategyName.SWAP, StrategyName.SWAP_IN_PLACE}
        how = "these change to it." if is_swap else "these end first, then it starts."
        note = f"There are no GPUs for {now.revision} beside the pods that serve: {how}"
        found.append(Event("Normal" if is_swap else "Warning", Reason.INSUFFICIENT_GPU, now.strategy, note))
    if now.swap_obstacle and not (was is not None and same and was.swap_obstacle == now.swap_obstacle):
        note = f"Pods of its own start for {now.revision}: {now.swap_obstacle}"
        found.append(Event("Normal", Reason.SWAP_NOT_POSSIBLE, "Start", note))
    skipped = (
        {gate.name for gate in was.gates if gate.verdict == Verdict.SKIPPED} if was is not None and same else set()
    )
    found += [
        Event("Warning", Reason.GATE_SKIPPED, "Evaluate", f"Gate {gate.name} of {now.revision}: {gate.message}")
        for gate in now.gates
        if gate.verdict == Verdict.SKIPPED and gate.name not in skipped
    ]
    if was is not None and same and was.phase == now.phase and was.reason == now.reason:
        return found
    if now.phase == RolloutPhase.PAUSED:
        found.append(Event("Normal", now.reason, "Pause", f"Revision {now.revision}: {now.message}"))
    elif now.phase == RolloutPhase.FAILED:
        note = f"Revision {now.revision} failed and is rolled back ({now.reason}): {now.message}"
        found.append(Event("Warning", Reason.ROLLED_BACK, "RollBack", note))
    return found


def _warnings(before: Status, after: Status) -> Iterable[Event]:
    """Return the events of conditions that became False; one for Ready and TrafficProgrammed with the same reason."""
    found = (
        *_turned_false(before, after, ConditionType.READY, "Serve"),
        *_turned_false(before, after, ConditionType.TRAFFIC_PROGRAMMED, "Route"),
        *_turned_false(before, after, ConditionType.SOURCE_UP_TO_DATE, "Watch"),
    )
    return {event.reason: event for event in found}.values()


def _turned_false(before: Status, after: Status, kind: ConditionType, action: str) -> list[Event]:
    """A condition that became False, or found another reason for it."""
    was, now = before.condition(kind), after.condition(kind)
    if now is None or now.status != "False":
        return []
    if was is not None and was.status == "False" and was.reason == now.reason:
        return []
    return [Event("Warning", now.reason, action, now.message)]


def _became_ready(before: Status, after: Status) -> list[Event]:
    was, now = before.condition(ConditionType.READY), after.condition(ConditionType.READY)
    if now is None or now.status != "True" or (was is not None and was.status == "True"):
        return []
    return [Event("Normal", Reason.SERVED, "Serve", now.message)]
