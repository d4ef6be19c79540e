"""Uploads to object stores: S3, and what has its API.

Credentials and endpoints are those of the environment, by the names of Amazon's own tools (AWS_ACCESS_KEY_ID,
AWS_ENDPOINT_URL, ...). Objects of over 8 MiB are sent in parts, several at a time.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import from_url

from conch.cli.model.manifest import File
from conch.cli.model.push.plan import Advance, Outcome, Upload, read_chunks
from conch.cli.options import CommandError

_PART: Final = 8 * 1024 * 1024  # bytes
_PARTS: Final = 4  # of a file at a time
_FILES: Final = 4  # at a time
_DIGEST: Final = "conch-sha256"  # user metadata of an object


async def push(upload: Upload, uri: str, advance: Advance) -> Outcome:
    """Upload a folder below a prefix.

    Args:
        upload: The upload.
        uri: s3://bucket/prefix.
        advance: Counts the bytes.

    Raises:
        CommandError: The store refuses a request.
    """
    prefix, outcome, semaphore = urlsplit(uri).path.strip("/"), Outcome(uri), asyncio.Semaphore(_FILES)
    try:
        store: Any = from_url(f"{urlsplit(uri).scheme}://{urlsplit(uri).netloc}", client_options=_build_options())

        async def send(file: File) -> None:
            async with semaphore:
                key = f"{prefix}/{file.path}".lstrip("/")
                if await _has(store, key, file):
                    outcome.present.append(file.path)
                    advance(file.size)
                else:
                    await _put(store, key, read_chunks(upload, file, advance, _PART), file)
                    outcome.sent.append(file.path)

        *first, last = upload.files
        await asyncio.gather(*map(send, first))
        await send(last)
    except BaseError as error:
        raise CommandError(
            f"{uri}: {_shorten(error)}; correct the target, or the credentials in the environment"
        ) from None
    return outcome


def _build_options() -> Any:
    """Return the client's options: TLS is required, unless the environment sets an endpoint of http://."""
    is_plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
    return {"allow_http": is_plain, "timeout": "86400s", "read_timeout": "300s"}


async def _has(store: Any, key: str, file: File) -> bool:
    """Return True if an earlier upload has written the file."""
    try:
        answer = await obstore.get_async(store, key, options={"head": True})
    except (FileNotFoundError, NotFoundError):
        return False
    return answer.meta["size"] == file.size and answer.attributes.get(_DIGEST) == file.sha256


async def _put(store: Any, key: str, chunks: Iterator[bytes], file: File) -> None:
    await obstore.put_async(
        store,
        key,
        chunks,
        attributes={_DIGEST: file.sha256},
        use_multipart=file.size > _PART,
        chunk_size=_PART,
        max_concurrency=_PARTS,
    )


def _shorten(error: Exception) -> str:
    return " ".join(str(error).split())[:500]
