"""Revision Jobs in the cluster: the reports that their pods left as termination messages, and Jobs without a pod."""

from collections.abc import Iterable, Iterator

from conch.api.kinds import JOB
from conch.api.text import read_json
from conch.observe.fields import mapping
from conch.observe.pod import Body
from conch_contract import JobReport
from conch_contract.revision_jobs import RevisionJob, find_job


def read_reports(pods: Iterable[Body], children: Iterable[Body]) -> dict[str, JobReport]:
    """Return the reports of revision Jobs, by the Job's name.

    A success counts before all other reports of a Job, and a failure that no retry cures before one that a retry may
    cure. The latter counts when the Job has failed: until then its next pod decides.

    Args:
        pods: Pods of the service, trimmed or not. One that outlives its Job for a moment is of an earlier Job.
        children: Children of the service.
    """
    pods_by_owner = _group_by_owner(pods)
    found: dict[str, JobReport] = {}
    for body in _list_jobs(children):
        name, uid = str(body["metadata"]["name"]), body["metadata"]["uid"]
        row = find_job(name)
        if row is None:
            continue
        reports = [*_read_failure(row, body), *_read_pods(row, pods_by_owner.get(uid, ()))]
        best = max(reversed(reports), key=_rank, default=None)
        if best is not None and (has_failed(body) or not best.is_retryable):
            found[name] = best
    return found


def find_idle_jobs(pods: Iterable[Body], children: Iterable[Body]) -> dict[str, Body]:
    """Return the Jobs that have no pod, by uid.

    Args:
        pods: Pods of the service.
        children: Children of the service.
    """
    pods_by_owner = _group_by_owner(pods)
    return {uid: body for body in _list_jobs(children) if (uid := body["metadata"]["uid"]) not in pods_by_owner}


def _list_jobs(children: Iterable[Body]) -> list[Body]:
    """Return the Jobs that are not being deleted."""
    return [child for child in children if child["kind"] == JOB.name and "deletionTimestamp" not in child["metadata"]]


def has_failed(job: Body) -> bool:
    """Whether a Job (trimmed or not) has the condition Failed."""
    return _find_failure(job) is not None


def _find_failure(job: Body) -> Body | None:
    """Return the condition Failed of a Job, if it is true."""
    conditions = mapping(job.get("status")).get("conditions") or ()
    return next((each for each in conditions if each["type"] == "Failed" and each["status"] == "True"), None)


def _group_by_owner(pods: Iterable[Body]) -> dict[str, list[Body]]:
    """Return pods by the uid of each owner."""
    found: dict[str, list[Body]] = {}
    for pod in pods:
        for owner in pod["metadata"].get("ownerReferences") or ():
            found.setdefault(owner["uid"], []).append(pod)
    return found


def _rank(report: JobReport) -> tuple[bool, bool]:
    return not report.has_failed, not report.is_retryable


def _read_failure(row: RevisionJob[JobReport], job: Body) -> Iterator[JobReport]:
    """Yield a report of a Job that failed, with the message of its condition."""
    if (failure := _find_failure(job)) is not None:
        yield row.report(reason=row.broken, message=f"The {row.title} Job failed: {failure['message']}")


def _read_pods(row: RevisionJob[JobReport], pods: Iterable[Body]) -> Iterator[JobReport]:
    """Yield the report of each pod whose program ended."""
    for pod in pods:
        if (ended := _find_end(pod, row.name)) is not None:
            yield _read_report(row, ended)


def _find_end(pod: Body, container: str) -> Body | None:
    """Return the state Terminated of a pod's container; None while it runs."""
    status = mapping(pod.get("status"))
    for entry in [*(status.get("containers") or ()), *(status.get("containerStatuses") or ())]:
        ended: Body | None = entry.get("state", {}).get("terminated")
        if entry["name"] == container and ended is not None:
            return ended
    return None


def _read_report(row: RevisionJob[JobReport], ended: Body) -> JobReport:
    """Return the report of a program.

    A program that left none (killed, evicted, of an older image) gets one with its exit code and the end of its log.
    """
    message = str(ended.get("message") or "").strip()
    try:
        return row.report.model_validate(read_json(message))
    except ValueError:
        end = f"{ended.get('reason', 'Error')}, exit code {ended.get('exitCode', '?')}"
        log = f" The end of its log: {message}" if message else ""
        return row.report(reason=row.broken, message=f"The {row.activity} ended without a report ({end}).{log}")
