"""The one package that writes to the API server. Everything else computes values.

May enter: calls, retries of calls, permissions. May not enter: what should be written, and why.
"""

from conch.write.capacity import look, look_if_it_can
from conch.write.errors import CallError
from conch.write.events import EventWriter
from conch.write.executor import Writer
from conch.write.leases import read_lease
from conch.write.server import Server
from conch.write.warnings import latest_warning

__all__ = ["CallError", "EventWriter", "Server", "Writer", "latest_warning", "look", "look_if_it_can", "read_lease"]
