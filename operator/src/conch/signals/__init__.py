"""What is asked of the outside: agents, Triton, Prometheus, and the API server of GPUs, warnings and Leases.

Reads only, in the background: a reconcile takes what is known and never waits. Decides nothing.
"""

from conch.signals.agents import Agents
from conch.signals.capacities import Capacities
from conch.signals.gauges import Gauges
from conch.signals.installations import Activity, Installations
from conch.signals.warnings import Warnings

__all__ = ["Activity", "Agents", "Capacities", "Gauges", "Installations", "Warnings"]
