"""Reads bodies of HTTP responses up to a maximum size: the server may be a user's pod."""

import aiohttp


class TooLargeError(ValueError):
    """A body, or a line of it, is larger than its maximum. The message is the rest of "it has ..."."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit >> 20} MiB" if limit >> 20 else f"more than {limit >> 10} KiB")


async def read_body(content: aiohttp.StreamReader, limit: int) -> bytes:
    """Return a whole body of at most `limit` bytes.

    Raises:
        TooLargeError: the body is larger. At most one chunk beyond the limit was read.
    """
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > limit:
            raise TooLargeError(limit)
    return bytes(body)
