"""The only package that writes to the API server. All others compute values.

In this package: calls, their retries, permissions. Not in it: decisions about what to write.
"""

from conch.write.capacity import read_capacities, try_read_capacities
from conch.write.errors import CallError
from conch.write.events import EventWriter
from conch.write.executor import Writer
from conch.write.leases import read_lease
from conch.write.server import Server
from conch.write.warnings import latest_warning

__all__ = [
    "CallError",
    "EventWriter",
    "Server",
    "Writer",
    "latest_warning",
    "read_capacities",
    "read_lease",
    "try_read_capacities",
]
