"""The story that a person would tell: what changed between two statuses, one event of a kind per change."""

from dataclasses import dataclass
from typing import Literal

from conch.api import ConditionType, Status


@dataclass(frozen=True)
class Event:
    """One line of `kubectl describe`."""

    type: Literal["Normal", "Warning"]
    reason: str
    action: str
    note: str


def events(before: Status, after: Status) -> tuple[Event, ...]:
    """Return what happened between two statuses, in the order in which it did."""
    return (*_revisions(before, after), *_failure(before, after), *_arrival(before, after))


def _revisions(before: Status, after: Status) -> list[Event]:
    known = {revision.name for revision in before.revisions}
    story = [
        Event("Normal", "RevisionCreated", "Create", f"Revision {r.number} is {r.name}.")
        for r in after.revisions
        if r.name not in known
    ]
    if before.stable and after.stable and before.stable != after.stable:
        note = f"Requests go to revision {after.stable}; {before.stable} drains and retires."
        story.append(Event("Normal", "Promoted", "Promote", note))
    return story


def _failure(before: Status, after: Status) -> list[Event]:
    was, now = before.condition(ConditionType.READY), after.condition(ConditionType.READY)
    if now is None or now.status != "False":
        return []
    if was is not None and was.status == "False" and was.reason == now.reason:
        return []
    return [Event("Warning", now.reason, "Serve", now.message)]


def _arrival(before: Status, after: Status) -> list[Event]:
    was, now = before.condition(ConditionType.READY), after.condition(ConditionType.READY)
    if now is None or now.status != "True" or (was is not None and was.status == "True"):
        return []
    return [Event("Normal", "Served", "Serve", now.message)]
