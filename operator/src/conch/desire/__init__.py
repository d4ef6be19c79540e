"""The desired children of a service, as a pure function of Snapshot and Decisions.

There is one builder for each kind. `desire` lists the children in the order of their creation.
It does not compare with existing objects (`plan` does), and has no clocks and calls.
"""

from conch.desire.children import desire
from conch.desire.defaults import PodDefaults
from conch.desire.revision import build_revision

__all__ = ["PodDefaults", "build_revision", "desire"]
