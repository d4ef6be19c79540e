"""Admission: whether a candidate's pods may start, beside those of the stable revision. Decided once a rollout.

All pods that the candidate needs at its end are counted, though its first steps need fewer: otherwise a rollout gets
stuck half-way. A wait for admission has no deadline: the candidate has not been tried, what serves loses nothing, and
the status reports what is missing.
"""

from dataclasses import dataclass

from conch.api import Admission
from conch.api.kinds import DEPLOYMENT
from conch.api.reasons import Reason
from conch.decide.admission.budget import Budget, Need, Owners, budget, resources_per_pod
from conch.decide.context import RolloutContext
from conch.decide.scale_to_zero import has_answered, may_scale_to_zero
from conch.decide.signatures import find_policy_problem
from conch.decide.state import RolloutState
from conch.decide.strategies import choose_strategy
from conch.observe import Finding, Snapshot
from conch.observe.capacity import Capacity, Owner, requested_by_pod
from conch.traffic import still_reached


@dataclass(frozen=True)
class AdmissionResult:
    """The admission of a rollout, what it still waits for, and the count in a sentence."""

    admission: Admission | None
    wait: Finding | None = None
    message: str = ""  # empty: there was nothing to check


def initial_admission(context: RolloutContext, state: RolloutState) -> Admission | None:
    """Return the admission of a rollout before the cluster's capacity is read; None: its pods need none.

    A rollout that begins under a signature policy that cannot be read waits for the policy, whatever its strategy: its
    pods would load nothing, and those of before might have ended for them.
    """
    rollout = context.service.spec.rollout
    if state.has_failed or state.admission not in {None, Admission.PENDING}:
        return state.admission
    is_new = state.admission == Admission.PENDING or not state.steps
    if is_new and find_policy_problem(context.track.signature_policy) is not None:
        return Admission.PENDING
    strategy = choose_strategy(rollout, can_swap=not context.swap_obstacle)
    starts_pods = strategy.serves_both and not strategy.shares_pods and not context.gave_its_name
    is_exempt = rollout.on_insufficient_capacity == "Surge" or not starts_pods
    if is_exempt or not resources_per_pod(context.service):
        return None
    if state.admission is None and rollout.on_insufficient_capacity == "Recreate" and _is_drained(context, state):
        return Admission.INSUFFICIENT  # an earlier candidate replaced the stable revision's pods, and this one its
    # A candidate whose pods had started before there was a budget goes on as it began.
    has_started = state.admission is None and context.track.replicas(context.wanted) > 0
    return None if has_started else Admission.PENDING


def reserve_own_pods(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot with GPUs reserved for the service's own pods that are on no node yet.

    So its predictor and variants, which one change may concern all at once, do not each count the same free ones.
    """
    if snapshot.capacity is None:
        return snapshot
    desired = {
        Owner(snapshot.key.namespace, ref.name): {
            resource: amount * snapshot.replicas(ref.name)
            for resource, amount in requested_by_pod(body["spec"]["template"]["spec"]).items()
        }
        for ref, body in snapshot.children.items()
        if ref.kind == DEPLOYMENT
    }
    return snapshot.with_capacity(snapshot.capacity.reserving(desired))


def admit(context: RolloutContext, state: RolloutState, capacity: Capacity | None) -> AdmissionResult:
    """Return the admission of a rollout.

    Args:
        context: the candidate and the stable revision.
        state: of the rollout, with its capacity.
        capacity: the nodes and quotas; None: they have not been read yet.
    """
    if not state.awaits_admission:
        return AdmissionResult(state.admission)
    if (problem := find_policy_problem(context.track.signature_policy)) is not None:
        return AdmissionResult(state.admission, problem)
    return _admit_pods(context, state, capacity)


def _admit_pods(context: RolloutContext, state: RolloutState, capacity: Capacity | None) -> AdmissionResult:
    """Return the admission of a rollout whose pods need GPUs."""
    service = context.service
    pods = context.router.pods(100, state.capacity)
    need = Need(context.wanted, pods, resources_per_pod(service), service.spec.predictor.pod)
    if _is_drained(context, state):
        capacity = None  # the stable revision's pods come back first; then the capacity counts
    if capacity is None and state.reason == Reason.INSUFFICIENT_GPU:
        return _wait(state.message)  # nothing new is known, such as after a restart of the operator
    if capacity is None:
        message = f"{_describe(need)}; the capacity of the nodes is being read."
        return AdmissionResult(state.admission, Finding(Reason.CHECKING_CAPACITY, message), message)
    if capacity.unknown:
        message = f"{_describe(need)}; whether they fit is not known: {capacity.unknown}."
        return AdmissionResult(Admission.UNKNOWN, message=message)
    left = budget(need, capacity)
    if left.fits >= need.pods:
        return AdmissionResult(Admission.ADMITTED, message=f"{_describe(need)}; {left.count}.")
    return _handle_shortage(context, need, left, capacity)


def _handle_shortage(context: RolloutContext, need: Need, left: Budget, capacity: Capacity) -> AdmissionResult:
    """Return the admission of a rollout whose pods do not fit beside the present ones."""
    message, leaving = f"{_describe(need)}; {left.count}", _find_leaving(context)
    insufficient = AdmissionResult(
        Admission.INSUFFICIENT, message=f"{message}. The pods of {context.stable} end first."
    )
    if not has_answered(context.track, context.stable):
        return insufficient
    if leaving and budget(need, capacity, leaving).fits >= need.pods:
        revisions = " and ".join(sorted(owner.workload for owner in leaving))
        return _wait(f"{message}. The pods of {revisions} are terminating, after which there are enough.")
    alone = budget(need, capacity, leaving | {_owner(context, context.track.workload_of(context.stable))}).fits
    if alone < need.pods:
        return _wait(
            f"{message}. Without the pods of {context.stable}, {alone} would fit. To go on: {left.remedy} or lower"
            " replicas."
        )
    reaction = context.service.spec.rollout.on_insufficient_capacity
    if reaction == "Recreate":
        return insufficient
    if reaction == "Swap" and not context.swap_obstacle:
        return AdmissionResult(Admission.INSUFFICIENT, message=f"{message}. The pods of {context.stable} change to it.")
    others = "Recreate or Swap"
    if reaction == "Swap":
        message, others = f"{message}. {context.swap_obstacle.removesuffix('.')}", "Recreate"
    return _wait(
        f"{message}. To go on: {left.remedy}, lower replicas, or set rollout.onInsufficientCapacity to {others}."
    )


def _wait(message: str) -> AdmissionResult:
    return AdmissionResult(Admission.PENDING, Finding(Reason.INSUFFICIENT_GPU, message), message)


def _describe(need: Need) -> str:
    return f"Revision {need.revision} needs {need}"


def _is_drained(context: RolloutContext, state: RolloutState) -> bool:
    """Whether the stable revision's pods ended for a candidate that is no longer requested."""
    track, stable = context.track, context.stable
    workload = track.workload_of(stable)
    if track.deployment(workload) is None:
        return False  # it was deleted, and is created again
    return not track.replicas(workload) and not may_scale_to_zero(track, state, stable)


def _find_leaving(context: RolloutContext) -> Owners:
    """Return the service's revisions whose pods are terminating, and hold GPUs until they are gone."""
    track = context.track
    stay = {context.stable} | context.traffic.reachable | still_reached(track)
    return frozenset(
        _owner(context, pod.workload or pod.revision) for pod in track.pods if pod.revision not in stay
    ) - {_owner(context, track.workload_of(context.stable))}


def _owner(context: RolloutContext, workload: str) -> Owner:
    return Owner(context.service.metadata.namespace, workload)
