"""The stores of watched objects, and the Snapshot, the frozen state of one service.

It reads and parses. It has no decisions, clocks and calls.
"""

from conch.observe.finding import Finding
from conch.observe.gateways import Gateways
from conch.observe.pod import Pod
from conch.observe.reading import Unreadable, observe
from conch.observe.signature_policies import SignaturePolicies
from conch.observe.snapshot import ObservedService, Revision, Snapshot, Track
from conch.observe.store import Store, owner_key

__all__ = [
    "Finding",
    "Gateways",
    "ObservedService",
    "Pod",
    "Revision",
    "SignaturePolicies",
    "Snapshot",
    "Store",
    "Track",
    "Unreadable",
    "observe",
    "owner_key",
]
