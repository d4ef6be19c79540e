"""What is asked of the outside: agents their reports, Triton its counters, Prometheus its numbers.

Reads only, in the background: a reconcile takes what is known and never waits. Decides nothing.
"""

from conch.signals.agents import Agents
from conch.signals.gauges import Gauges

__all__ = ["Agents", "Gauges"]
