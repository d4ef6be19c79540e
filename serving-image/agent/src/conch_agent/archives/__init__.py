"""Archives of models: what is in a tar file, within bounds, and as a folder.

tarfile is not used: it reads extended headers whole, and Python 3.11.2 has none of its extraction filters, so each
bound would be a subclass. A header has few forms, and the reader here has a bound for each of them. Nothing here
knows where an archive comes from.
"""

from conch_agent.archives.unpack import Limits, Unpacker

__all__ = ["Limits", "Unpacker"]
