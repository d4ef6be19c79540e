"""Whether a candidate is warm: what its warm-up Job tells, remembered in the status when the Job is gone."""

from typing import Final

from conch.api import WarmupStatus
from conch.observe import Finding, Snapshot
from conch_contract import names

JOB_REFUSED: Final = "JobPodsRefused"
_FAILED_CREATE: Final = "FailedCreate"  # the reason of the Job controller's event


def asks_for_warmup(snapshot: Snapshot) -> bool:
    """Whether the service wants its revisions warmed."""
    return snapshot.service.spec.predictor.warmup is not None


def warmed(snapshot: Snapshot, revision: str) -> WarmupStatus | None:
    """Return what the warm-up of a revision saw, if it went well; None: there was none yet."""
    report = snapshot.warmups.get(revision)
    if report is not None:
        return None if report.has_failed else WarmupStatus.of(report)
    known = snapshot.service.status.revision(revision)
    return known.warmup if known else None


def warmup_failed(snapshot: Snapshot, revision: str) -> Finding | None:
    """Return why the warm-up of a revision failed, if it did."""
    report = snapshot.warmups.get(revision)
    if report is None or not report.has_failed:
        return None
    return find_refused_job(snapshot, revision, parity=False) or Finding(report.reason, report.message)


def warmup_waits(snapshot: Snapshot, revision: str) -> Finding | None:
    """Return what a share of the requests still waits for."""
    if not asks_for_warmup(snapshot) or warmed(snapshot, revision) is not None:
        return None
    return find_refused_job(snapshot, revision, parity=False) or Finding(
        "WarmingUp", f"The warm-up Job asks revision {revision}, and has not ended yet."
    )


def find_refused_job(snapshot: Snapshot, revision: str, *, parity: bool) -> Finding | None:
    """Return why the API server refuses the pod of a revision's warm-up Job, or of its parity Job."""
    for uid, job in snapshot.idle_jobs.items():
        labels, said = job["metadata"].get("labels") or {}, snapshot.warnings.get(uid)
        ours = labels.get(names.LABEL_REVISION) == revision and (names.LABEL_PARITY in labels) == parity
        if ours and said is not None and said.reason == _FAILED_CREATE:
            return Finding(JOB_REFUSED, f"The cluster refuses the pod of Job {job['metadata']['name']}: {said.message}")
    return None
