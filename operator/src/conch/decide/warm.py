"""Whether a candidate is warm: what its warm-up Job tells, remembered in the status when the Job is gone."""

from typing import Final

from conch.api import WarmupStatus
from conch.observe import Trouble, World
from conch_contract import names

JOB_REFUSED: Final = "JobPodsRefused"
_FAILED_CREATE: Final = "FailedCreate"  # the reason of the Job controller's event


def asks_for_warmup(world: World) -> bool:
    """Whether the service wants its revisions warmed."""
    return world.service.spec.predictor.warmup is not None


def warmed(world: World, revision: str) -> WarmupStatus | None:
    """Return what the warm-up of a revision saw, if it went well; None: there was none yet."""
    report = world.warmups.get(revision)
    if report is not None:
        return None if report.failed else WarmupStatus.of(report)
    known = world.service.status.revision(revision)
    return known.warmup if known else None


def warmup_failed(world: World, revision: str) -> Trouble | None:
    """Return why the warm-up of a revision failed, if it did."""
    report = world.warmups.get(revision)
    if report is None or not report.failed:
        return None
    return find_refused_job(world, revision, parity=False) or Trouble(report.reason, report.message)


def warmup_waits(world: World, revision: str) -> Trouble | None:
    """Return what a share of the requests still waits for."""
    if not asks_for_warmup(world) or warmed(world, revision) is not None:
        return None
    return find_refused_job(world, revision, parity=False) or Trouble(
        "WarmingUp", f"The warm-up Job asks revision {revision}, and has not ended yet."
    )


def find_refused_job(world: World, revision: str, *, parity: bool) -> Trouble | None:
    """Return why the API server refuses the pod of a revision's warm-up Job, or of its parity Job."""
    for uid, job in world.idle_jobs.items():
        labels, said = job["metadata"].get("labels") or {}, world.warnings.get(uid)
        ours = labels.get(names.LABEL_REVISION) == revision and (names.LABEL_PARITY in labels) == parity
        if ours and said is not None and said.reason == _FAILED_CREATE:
            return Trouble(JOB_REFUSED, f"The cluster refuses the pod of Job {job['metadata']['name']}: {said.message}")
    return None
