"""The stores that watch events feed, and the Snapshot, the frozen picture of one service.

Here: reading and parsing. Not here: decisions, clocks, calls.
"""

from conch.observe.finding import Finding
from conch.observe.gateways import Gateways
from conch.observe.reading import Unreadable, observe
from conch.observe.snapshot import ObservedService, Pod, Revision, Snapshot, Track
from conch.observe.store import Store, owner_key

__all__ = [
    "Finding",
    "Gateways",
    "ObservedService",
    "Pod",
    "Revision",
    "Snapshot",
    "Store",
    "Track",
    "Unreadable",
    "observe",
    "owner_key",
]
