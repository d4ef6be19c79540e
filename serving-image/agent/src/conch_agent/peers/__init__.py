"""Pods of one service that send each other the files which they fetch: the store is read once for all of them.

Highest random weight decides which pod reads which piece (`addresses`). The bytes are those of the source: checks of
digests and signatures, decryption and layout are those of any source.
"""

from conch_agent.peers.sharing import Peers
from conch_agent.peers.source import PeerSource

__all__ = ["PeerSource", "Peers"]
