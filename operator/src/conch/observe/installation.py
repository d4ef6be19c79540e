"""Installations of Conch, each known by the Lease of its replicas: <namespace>/<name>."""

from typing import NamedTuple


class LeaseRecord(NamedTuple):
    """The result of a read of a Lease."""

    exists: bool
    content: str = ""  # changes with each renewal; empty: the operator may not read it


NO_LEASE = LeaseRecord(exists=False)
