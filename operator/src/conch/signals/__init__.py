"""What pods tell: the operator asks agents for their reports. Reads only; decides nothing."""

from conch.signals.agents import Agents

__all__ = ["Agents"]
