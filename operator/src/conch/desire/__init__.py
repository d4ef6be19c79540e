"""What should exist: every child, fully formed, as a function of Snapshot and Decision. Pure.

One builder a kind; `desire` lists them in the order in which they may come to be.
May not enter: what exists already (that is `plan`), clocks, calls.
"""

from conch.desire.children import desire
from conch.desire.defaults import PodDefaults
from conch.desire.revision import new_revision

__all__ = ["PodDefaults", "desire", "new_revision"]
