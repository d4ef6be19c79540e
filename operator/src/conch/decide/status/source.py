"""The condition SourceUpToDate: whether the revision that serves has the content of the watched sources."""

from typing import Final

from conch.api import ConditionType
from conch.api.reasons import Reason
from conch.api.times import format_time
from conch.decide.source import (
    find_changes,
    find_current,
    find_watching_pod,
    list_revisions,
    list_watched,
    read_sources,
)
from conch.decide.status.condition import OF_VARIANT, PendingCondition
from conch.decide.track import Decision
from conch_contract.sentences import join_some

_KIND: Final = ConditionType.SOURCE_UP_TO_DATE


def build_source_condition(decision: Decision) -> PendingCondition | None:
    """Return the condition of a track with watched sources; None: it has none.

    It stays as it was while no pod reports.

    Args:
        decision: for the track.
    """
    track, watched = decision.track, list_watched(decision.track.service)
    if not watched:
        return None
    pod, current = find_watching_pod(track), find_current(track, watched)
    messages = [source.message for source in (pod.report.sources if pod and pod.report else ()) if source.message]
    if messages:
        message = f"New content is not noticed until the source can be read again. {messages[0]}"
        return PendingCondition(_KIND, "Unknown", Reason.SOURCE_UNREADABLE, message)
    serving = list_revisions(track).get(decision.serving)  # one of another predictor may have another source
    has = read_sources(track, serving, watched) if serving else {}
    if current is None or not has:
        return _keep_condition(decision, watched)
    changed = find_changes(has, current.identities)
    if not changed:
        return _build_good(decision)
    uris = {model.name: model.storage_uri for model in track.service.models}
    where = join_some(uris[name] for name in changed)
    message = (
        f"Since {format_time(current.since)} {where} has other content than revision {decision.serving}."
        f" {_describe_next(decision, frozenset(changed))}"
    )
    return PendingCondition(_KIND, "False", Reason.NEW_CONTENT, message)


def _keep_condition(decision: Decision, watched: frozenset[str]) -> PendingCondition:
    """Return the condition while no pod has read the sources: as it was, unless the new content serves by now."""
    service = decision.track.service
    before = service.status.condition(_KIND)
    if before is not None and before.message.startswith(OF_VARIANT):  # which replaces only a good one
        return _build_good(decision)
    if before is None or before.reason not in {Reason.UP_TO_DATE, Reason.NEW_CONTENT}:
        message = "The sources were not read twice since pods serve the revision."
        return PendingCondition(_KIND, "Unknown", Reason.PENDING, message)
    has_taken_over = decision.wanted == decision.serving and watched == list_watched(service, rolls_out=True)
    if before.status == "True" or has_taken_over:
        return _build_good(decision)
    return PendingCondition(_KIND, "False", before.reason, before.message)


def _build_good(decision: Decision) -> PendingCondition:
    message = f"Revision {decision.serving} has the content of the source."
    return PendingCondition(_KIND, "True", Reason.UP_TO_DATE, message)


def _describe_next(decision: Decision, changed: frozenset[str]) -> str:
    """Return what happens with new content, or what a user can do."""
    if not changed & list_watched(decision.track.service, rolls_out=True):
        return (
            "To serve it, set storage.watch to Rollout, or change an annotation in pod.annotations, so that there is a"
            " new revision."
        )
    if decision.failed:
        return f"Revision {decision.wanted} with it was rolled back. Upload other content, or see status.rollout."
    return f"Revision {decision.wanted} with it is rolled out."
