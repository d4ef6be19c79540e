"""Sleep: a revision without pods, as asked. KEDA takes the last one, and starts one when a trigger is active.

Only what has served may sleep: a revision proves itself with a pod first, and that pod stays while a rollout may
need it.
"""

from typing import Final

from conch.api import ConditionType, RolloutPhase, RolloutStatus
from conch.observe import Snapshot

# The reason of the condition Serving before any pod has answered.
NOT_YET: Final = "Pending"


def may_rest(snapshot: Snapshot, memory: RolloutStatus | None, revision: str) -> bool:
    """Whether a revision may be without pods.

    Args:
        snapshot: what is.
        memory: of the rollout under way, or of the one that failed; None: there is neither.
        revision: which one.
    """
    if snapshot.metrics_api != "keda" or snapshot.service.spec.predictor.min_replicas:
        return False
    if memory is None:
        complete = snapshot.service.status.condition(ConditionType.ROLLOUT_COMPLETE)
        return snapshot.service.status.stable == revision and complete is not None and complete.status == "True"
    if memory.revision == revision:
        return False
    if memory.phase == RolloutPhase.FAILED:
        return True
    # What sleeps when a rollout begins sleeps on: it protects nobody, but it has to answer for a comparison. And what
    # is drained for the other does not sleep: nothing wakes it.
    rollout = snapshot.service.spec.rollout
    return snapshot.replicas(revision) == 0 and rollout.parity is None and rollout.strategy != "Recreate"


def has_answered(snapshot: Snapshot, revision: str) -> bool:
    """Whether the stable revision has ready pods, or the service had some before."""
    serving = snapshot.service.status.condition(ConditionType.SERVING)
    before = serving is not None and (serving.status, serving.reason) != ("Unknown", NOT_YET)
    return before or snapshot.ready(revision) > 0


def asleep(snapshot: Snapshot, memory: RolloutStatus | None, revision: str) -> bool:
    """Whether a revision has no pods, as asked."""
    there = snapshot.deployment(revision) is not None
    return there and snapshot.replicas(revision) == 0 and may_rest(snapshot, memory, revision)


def wakes_up(snapshot: Snapshot, memory: RolloutStatus | None, revision: str) -> bool:
    """Whether a revision that may sleep has been asked for, and none of its pods answers yet."""
    return snapshot.replicas(revision) > 0 and not snapshot.ready(revision) and may_rest(snapshot, memory, revision)
