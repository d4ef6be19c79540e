"""What is: the stores that watch events feed, and the Snapshot, one service's frozen snapshot of them.

May enter: reading and parsing. May not enter: wishes, clocks, calls.
"""

from conch.observe.finding import Finding
from conch.observe.gateways import Gateways
from conch.observe.reading import Unreadable, observe
from conch.observe.snapshot import Pod, Revision, Snapshot
from conch.observe.store import Store, owner_key

__all__ = ["Finding", "Gateways", "Pod", "Revision", "Snapshot", "Store", "Unreadable", "observe", "owner_key"]
