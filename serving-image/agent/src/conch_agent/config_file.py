"""The config.pbtxt of a source, which is read before the files are fetched."""

from __future__ import annotations

import hashlib
from contextlib import aclosing
from typing import Final

from conch_agent import layout
from conch_agent.digests import check_digest
from conch_agent.reasons import Failure, Reason
from conch_agent.sources.base import Listing, Source
from conch_contract.formats import FormatName

_LONGEST: Final = 1024 * 1024


async def read_config_file(source: Source, listing: Listing, model_format: FormatName) -> str | None:
    """Return config.pbtxt before the fetch: it names files, and an invalid one requires no download.

    In an archive it is read after the download.

    Args:
        source: The source.
        listing: Its files.
        model_format: Format of the model.

    Raises:
        Failure: InvalidConfig, DigestMismatch, or a failure of the source.
    """
    path = layout.find_config(model_format, [item.path for item in listing.items])
    if path is None:
        return None
    item = next(item for item in listing.items if item.path == path)
    content = bytearray()
    async with aclosing(source.read(item, 0)) as chunks:
        async for chunk in chunks:
            content += chunk
            if len(content) > _LONGEST:
                message = f"{source.uri}: {path} has over {_LONGEST} bytes: that is no model's config.pbtxt."
                raise Failure(Reason.INVALID_CONFIG, message)
    check_digest(item, source.uri, hashlib.sha256(content).hexdigest(), len(content), [content])
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        message = f"{source.uri}: {path} is no text: byte {error.start} is not UTF-8. Write it as text."
        raise Failure(Reason.INVALID_CONFIG, message) from None
