"""Whether a candidate is warm: the report of its warm-up Job, which the status keeps when the Job is gone."""

from conch.api import WarmupStatus
from conch.api.reasons import Reason
from conch.decide.jobs import find_refused_job
from conch.observe import Finding, Track
from conch_contract.revision_jobs import WARMUP


def has_warmup(track: Track) -> bool:
    """Whether the service's revisions are warmed up."""
    return track.service.spec.predictor.warmup is not None


def warmed(track: Track, revision: str) -> WarmupStatus | None:
    """Return the result of a revision's warm-up, if it succeeded; None: not yet."""
    report = track.find_report(WARMUP, revision)
    if report is not None:
        return None if report.has_failed else WarmupStatus.of(report)
    known = track.service.status.revision(revision)
    return known.warmup if known else None


def warmup_failed(track: Track, revision: str) -> Finding | None:
    """Return why the warm-up of a revision failed, if it did."""
    report = track.find_report(WARMUP, revision)
    if report is None or not report.has_failed:
        return None
    return find_refused_job(track, revision, WARMUP) or Finding(report.reason, report.message)


def warmup_waits(track: Track, revision: str) -> Finding | None:
    """Return the finding for a warm-up that has not ended; None: the revision is warm."""
    if not has_warmup(track) or warmed(track, revision) is not None:
        return None
    return find_refused_job(track, revision, WARMUP) or Finding(
        Reason.WARMING_UP, f"The warm-up Job of revision {revision} has not ended yet."
    )
