"""The plan: the ordered writes from the existing to the desired objects. Pure.

In this package: comparison and order. Not in it: the desired objects (`desire`), calls (`write`).
"""

from conch.plan.actions import (
    ABSENT,
    STAMP,
    Action,
    Adopt,
    Apply,
    ApplyRejected,
    Assign,
    Change,
    Delete,
    Release,
    Step,
    plan,
)
from conch.plan.failures import LASTING, find_unwritten

__all__ = [
    "ABSENT",
    "LASTING",
    "STAMP",
    "Action",
    "Adopt",
    "Apply",
    "ApplyRejected",
    "Assign",
    "Change",
    "Delete",
    "Release",
    "Step",
    "find_unwritten",
    "plan",
]
