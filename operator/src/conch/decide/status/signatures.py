"""The condition SignaturePolicy: whether all models of a track have passed the signature policy of the namespace."""

from collections.abc import Sequence
from typing import Final

from conch.api import ConditionType, RevisionStatus
from conch.api.reasons import Reason
from conch.decide.signatures import find_policy_problem, is_signed
from conch.decide.status.condition import PendingCondition
from conch_contract import SignaturePolicy
from conch_contract.sentences import join_some

_POLICY: Final = ConditionType.SIGNATURE_POLICY


def build_signature_condition(policy: SignaturePolicy, revisions: Sequence[RevisionStatus]) -> PendingCondition:
    """Return the condition of a track in a namespace with a signature policy.

    Args:
        policy: of the namespace.
        revisions: the status of the track's revisions.
    """
    if (problem := find_policy_problem(policy)) is not None:
        return PendingCondition(_POLICY, "False", problem.reason, problem.message)
    serving = [revision for revision in revisions if revision.replicas.ready]
    unsigned = [
        f"{model.name} of revision {revision.name}"
        for revision in serving
        for model in revision.models
        if not is_signed(model, policy)
    ]
    if unsigned:
        message = (
            f"Pods serve models without a signature of the policy {policy.name}: {join_some(unsigned)}. They loaded"
            " them before the policy had these keys, or their agent is older than signature policies. They serve on"
            " until they end. Delete them one after another, or change the predictor."
        )
        return PendingCondition(_POLICY, "False", Reason.MODELS_NOT_SIGNED, message)
    if not serving or not all(any(model.digest for model in revision.models) for revision in serving):
        return PendingCondition(_POLICY, "Unknown", Reason.PENDING, "Not all pods have reported a model yet.")
    message = f"All models have a signature of the policy {policy.name}."
    return PendingCondition(_POLICY, "True", Reason.MODELS_SIGNED, message)
