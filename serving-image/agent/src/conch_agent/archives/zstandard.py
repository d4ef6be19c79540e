"""Zstandard, which Python has since 3.14, and a backport of the same API before."""

import sys

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["zstd"]
