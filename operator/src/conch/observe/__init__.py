"""What is: the stores that watch events feed, and the World, one service's frozen snapshot of them.

May enter: reading and parsing. May not enter: wishes, clocks, calls.
"""

from conch.observe.finding import Trouble
from conch.observe.gateways import Gateways
from conch.observe.reading import Unreadable, observe
from conch.observe.store import Store, owner_key
from conch.observe.world import Pod, Revision, World

__all__ = ["Gateways", "Pod", "Revision", "Store", "Trouble", "Unreadable", "World", "observe", "owner_key"]
