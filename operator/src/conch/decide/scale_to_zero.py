"""Scale to zero: a revision without pods by request. KEDA ends the last one, and starts one when a trigger is active.

Only a revision that has served may be scaled to zero: it proves itself with a pod first, and that pod stays while a
rollout may need it.
"""

from typing import Final

from conch.api import ConditionType
from conch.decide.state import RolloutState
from conch.decide.strategies import find_parity_gate, strategy_of
from conch.observe import Snapshot

# The reason of the condition Serving before any pod has answered.
NOT_YET: Final = "Pending"


def may_scale_to_zero(snapshot: Snapshot, state: RolloutState | None, revision: str) -> bool:
    """Whether a revision may be without pods.

    Args:
        snapshot: of the service, as the predictor or a variant.
        state: of the rollout under way, or of the one that failed; None: there is neither.
        revision: its name.
    """
    if snapshot.metrics_api != "keda" or snapshot.service.spec.predictor.min_replicas:
        return False
    if state is None:
        complete = snapshot.service.status.condition(ConditionType.ROLLOUT_COMPLETE)
        return snapshot.service.status.stable == revision and complete is not None and complete.status == "True"
    if state.revision == revision:
        return False
    if state.has_failed:
        return True
    # A stable revision that has no pods when a rollout begins stays so: a rollback needs none. But for the parity gate
    # it has to answer. And one that is drained for the candidate is not scaled to zero: no trigger starts its pods.
    rollout = snapshot.service.spec.rollout
    strategy = strategy_of(state, rollout)
    return snapshot.replicas(revision) == 0 and strategy.serves_both and not find_parity_gate(strategy.gates(rollout))


def has_answered(snapshot: Snapshot, revision: str) -> bool:
    """Whether the stable revision has ready pods, or the service had some before."""
    serving = snapshot.service.status.condition(ConditionType.SERVING)
    before = serving is not None and (serving.status, serving.reason) != ("Unknown", NOT_YET)
    return before or snapshot.ready(revision) > 0


def is_scaled_to_zero(snapshot: Snapshot, state: RolloutState | None, revision: str) -> bool:
    """Whether a revision has no pods by request."""
    exists = snapshot.deployment(revision) is not None
    return exists and snapshot.replicas(revision) == 0 and may_scale_to_zero(snapshot, state, revision)


def is_waking_up(snapshot: Snapshot, state: RolloutState | None, revision: str) -> bool:
    """Whether a trigger has requested pods of a revision that may be scaled to zero, and none answers yet."""
    return (
        snapshot.replicas(revision) > 0
        and not snapshot.ready(revision)
        and may_scale_to_zero(snapshot, state, revision)
    )
