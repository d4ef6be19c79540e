"""Scale to zero: a revision without pods by request. KEDA ends the last one, and starts one when a trigger is active.

Only a revision that has served may be scaled to zero: it proves itself with a pod first, and that pod stays while a
rollout may need it.
"""

from conch.api import ConditionType
from conch.api.reasons import Reason
from conch.decide.state import RolloutState
from conch.decide.strategies import strategy_of
from conch.observe import Track


def may_scale_to_zero(track: Track, state: RolloutState | None, revision: str) -> bool:
    """Whether a revision may be without pods.

    Args:
        track: of the service, as the predictor or a variant.
        state: of the rollout under way, or of the one that failed; None: there is neither.
        revision: its name.
    """
    if track.metrics_api != "keda" or track.service.spec.predictor.min_replicas:
        return False
    if state is None:
        complete = track.service.status.condition(ConditionType.ROLLOUT_COMPLETE)
        return track.service.status.stable == revision and complete is not None and complete.status == "True"
    if state.revision == revision:
        return False
    if state.has_failed:
        return True
    # A stable revision that has no pods when a rollout begins stays so: a rollback needs none. But a gate may need its
    # answers. And one that is drained for the candidate is not scaled to zero: no trigger starts its pods.
    rollout = track.service.spec.rollout
    strategy = strategy_of(state, rollout)
    is_needed = any(gate.needs_stable for gate in strategy.gates(rollout))
    return track.replicas(track.workload_of(revision)) == 0 and strategy.serves_both and not is_needed


def has_answered(track: Track, revision: str) -> bool:
    """Whether the stable revision has ready pods, or the service had some before."""
    serving = track.service.status.condition(ConditionType.SERVING)
    before = serving is not None and (serving.status, serving.reason) != ("Unknown", Reason.PENDING)
    return before or track.ready(revision) > 0


def is_scaled_to_zero(track: Track, state: RolloutState | None, revision: str) -> bool:
    """Whether a revision has no pods by request."""
    workload = track.workload_of(revision)
    exists = track.deployment(workload) is not None
    return exists and track.replicas(workload) == 0 and may_scale_to_zero(track, state, revision)


def is_waking_up(track: Track, state: RolloutState | None, revision: str) -> bool:
    """Whether a trigger has requested pods of a revision that may be scaled to zero, and none answers yet."""
    replicas = track.replicas(track.workload_of(revision))
    return replicas > 0 and not track.ready(revision) and may_scale_to_zero(track, state, revision)
