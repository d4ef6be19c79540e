"""Installations of Conch, each known by the Lease of its replicas: <namespace>/<name>."""

from typing import NamedTuple


class LeaseRecord(NamedTuple):
    """What one look at a Lease found."""

    exists: bool
    content: str = ""  # changes with each renewal; empty: the operator may not read it


NO_LEASE = LeaseRecord(exists=False)
