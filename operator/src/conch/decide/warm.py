"""Whether a candidate is warm: what its warm-up Job tells, remembered in the status when the Job is gone."""

from conch.api import WarmupStatus
from conch.observe import Trouble, World


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
    return Trouble(report.reason, report.message) if report is not None and report.failed else None


def warmup_waits(world: World, revision: str) -> Trouble | None:
    """Return what a share of the requests still waits for."""
    if not asks_for_warmup(world) or warmed(world, revision) is not None:
        return None
    return Trouble("WarmingUp", f"The warm-up Job asks revision {revision}, and has not ended yet.")
