"""What a warm-up Job's pod left behind: its termination message, a WarmupReport as JSON."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from conch.api.kinds import JOB
from conch.api.text import read_json
from conch.observe.identity import revision_of
from conch_contract import WarmupReport, names


def warmups(pods: Iterable[Mapping[str, Any]], children: Iterable[Mapping[str, Any]]) -> dict[str, WarmupReport]:
    """Return what came of warm-ups, by revision: the pod's own report, or else why the Job was given up."""
    jobs = present(children)
    found = {
        revision: WarmupReport(reason="WarmupBroken", message=f"The warm-up Job failed: {why}")
        for revision, why in given_up(jobs, parity=False)
    }
    for pod in pods_of(jobs, pods):
        report = report_of(pod)
        revision = (pod["metadata"].get("labels") or {}).get(names.LABEL_WARMUP, "")
        if report is None or (report.is_retryable and revision not in found):
            continue  # the Job tries again: the last word is the next pod's, or the Job's
        if revision not in found or found[revision].has_failed:
            found[revision] = report
    return found


def report_of(body: Mapping[str, Any]) -> WarmupReport | None:
    """Read the report of an ended warm-up pod (trimmed or not); None of one that runs, or of another pod.

    A pod that ended without a report (killed, evicted, an older image) gets one that says how it ended.
    """
    if names.LABEL_WARMUP not in (body["metadata"].get("labels") or {}):
        return None
    ended = terminated(body, names.WARMUP_CONTAINER)
    return None if ended is None else _report(ended)


def present(children: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the Jobs that are there, and not on their way out."""
    return [child for child in children if child["kind"] == JOB.name and "deletionTimestamp" not in child["metadata"]]


def pods_of(jobs: Iterable[Mapping[str, Any]], pods: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield the pods of these Jobs: one that outlives its Job for a moment speaks of an earlier try."""
    uids = {job["metadata"]["uid"] for job in jobs}
    for pod in pods:
        if any(owner["uid"] in uids for owner in pod["metadata"].get("ownerReferences") or ()):
            yield pod


def given_up(jobs: Iterable[Mapping[str, Any]], *, parity: bool) -> Iterator[tuple[str, str]]:
    """Yield the revision of each Job that failed, and why; of parity Jobs, or of the others, which warm up."""
    for job in jobs:
        labels = job["metadata"].get("labels") or {}
        if (names.LABEL_PARITY in labels) != parity:
            continue
        failed = next((c for c in (job.get("status") or {}).get("conditions") or () if c["type"] == "Failed"), None)
        if failed is not None and failed["status"] == "True":
            yield revision_of(job), failed["message"]


def has_failed(job: Mapping[str, Any]) -> bool:
    """Whether a Job (trimmed or not) has the condition Failed."""
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any(condition["type"] == "Failed" and condition["status"] == "True" for condition in conditions)


def terminated(body: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """Return how a container of a pod (trimmed or not) ended; None while it runs."""
    status = body.get("status") or {}
    for container in [*(status.get("containers") or ()), *(status.get("containerStatuses") or ())]:
        ended: Mapping[str, Any] | None = container.get("state", {}).get("terminated")
        if container["name"] == name and ended is not None:
            return ended
    return None


def ended_words(ended: Mapping[str, Any], said: str) -> str:
    """Say how a container ended that left no report."""
    how = f"{ended.get('reason', 'Error')}, exit code {ended.get('exitCode', '?')}"
    return f"ended without a report ({how})." + (f" The end of its log: {said}" if said else "")


def _report(ended: Mapping[str, Any]) -> WarmupReport:
    said = str(ended.get("message") or "").strip()
    try:
        return WarmupReport.model_validate(read_json(said))
    except ValueError:
        return WarmupReport(reason="WarmupBroken", message=f"The warm-up {ended_words(ended, said)}")
