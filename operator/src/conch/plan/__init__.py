"""What to write: the difference between what should exist and what does, in the right order. Pure.

May enter: comparison. May not enter: what should exist (that is `desire`), calls.
"""

from conch.plan.actions import ABSENT, Action, Adopt, Apply, Change, Delete, Refusal, Release, Step, plan
from conch.plan.failures import LASTING, unwritten

__all__ = [
    "ABSENT",
    "LASTING",
    "Action",
    "Adopt",
    "Apply",
    "Change",
    "Delete",
    "Refusal",
    "Release",
    "Step",
    "plan",
    "unwritten",
]
