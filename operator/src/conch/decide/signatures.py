"""What the namespace's signature policy means for a service: whether its models have passed it, and what it holds."""

from conch.api import ModelStatus
from conch.api.reasons import Reason
from conch.observe import Finding
from conch_contract import SignaturePolicy
from conch_contract.report import is_left_out


def is_signed(model: ModelStatus, policy: SignaturePolicy | None) -> bool:
    """Return whether the files of a model have passed the policy in force, as far as its pods report.

    Args:
        model: in the status.
        policy: of the namespace; None: there is none. Under one that cannot be read nothing is known.
    """
    if policy is None or not policy.version or is_left_out(model):
        return True
    return policy.check in model.verified or not model.digest


def find_policy_problem(policy: SignaturePolicy | None) -> Finding | None:
    """Return why no pod can load a model at present; None: the policy can be read, or there is none."""
    if policy is None or policy.version:
        return None
    message = f"{policy.problem} Until then no pod loads a model; models that are loaded serve on."
    return Finding(Reason.SIGNATURE_POLICY_UNREADABLE, message)
