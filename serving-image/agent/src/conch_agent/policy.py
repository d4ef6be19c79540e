"""The signature policy of the pod's namespace, which the operator writes beside the manifest.

It is read before each fetch and each load, and is no part of a revision: a pod of an old revision that starts today
needs the signatures of today's policy, and a change of the policy reloads nothing that serves.
"""

from __future__ import annotations

from typing import Final

from pydantic import ValidationError

from conch_agent.reasons import Failure, Reason
from conch_agent.settings import Settings
from conch_contract import SignaturePolicy

_LONGEST: Final = 1024 * 1024  # bytes of a ConfigMap, which is all that the kubelet writes


def read_policy(settings: Settings) -> SignaturePolicy | None:
    """Return the policy in force; None: the namespace has none.

    Args:
        settings: The agent's settings.

    Raises:
        Failure: SignaturePolicyUnreadable: there is one, and it has no keys that can be read.
    """
    try:
        with settings.policy.open("rb") as file:
            policy = SignaturePolicy.model_validate_json(file.read(_LONGEST))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise _build_unreadable(f"{settings.policy} cannot be read: {str(error)[:300]}.") from None
    if not (policy.version and policy.trusted):
        raise _build_unreadable(policy.problem or f"The signature policy {policy.name!r} has no keys.")
    return policy


def _build_unreadable(problem: str) -> Failure:
    message = f"{problem} The namespace needs signed models, and no model is loaded until the policy can be read."
    return Failure(Reason.POLICY_UNREADABLE, message)


def has_passed(passed_version: str, policy: SignaturePolicy | None) -> bool:
    """Return True if files that have passed a version of the policy may be loaded.

    Args:
        passed_version: The version; empty: they have passed none.
        policy: The policy in force; None: there is none.
    """
    return policy is None or passed_version == policy.version
