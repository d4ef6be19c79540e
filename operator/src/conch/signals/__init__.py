"""Reads from outside the operator: agents, Triton, Prometheus, and the API server for GPUs, warnings and Leases.

Reads only, in the background: a reconcile takes the known values and never waits. Decides nothing.
"""

from conch.signals.agents import Agents
from conch.signals.capacities import Capacities
from conch.signals.collector import Collector
from conch.signals.installations import Activity, Installations
from conch.signals.warnings import Warnings

__all__ = ["Activity", "Agents", "Capacities", "Collector", "Installations", "Warnings"]
