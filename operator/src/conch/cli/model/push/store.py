"""Uploads to object stores: S3, and what has its API.

Credentials and endpoints are those of the environment, by the names of Amazon's own tools (AWS_ACCESS_KEY_ID,
AWS_ENDPOINT_URL, ...). Objects of over 8 MiB are sent in parts, several at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import obstore
from obstore.exceptions import NotFoundError
from obstore.store import from_url

from conch.cli.model.environment import read_environment
from conch.cli.model.manifest import File
from conch.cli.model.push.plan import Advance, Outcome, Upload, find_change, read_chunks
from conch.cli.options import CommandError
from conch_agent.reasons import Failure, Reason
from conch_agent.sources.base import Listing
from conch_agent.sources.s3 import S3Source
from conch_agent.sources.s3_errors import TERMS
from conch_agent.sources.s3_settings import S3Settings, parse_settings
from conch_agent.sources.store_errors import Target, classify, is_client_error
from conch_agent.tasks import run_all
from conch_contract.schemes import SCHEMES, has_form
from conch_contract.sentences import join_some

_PART: Final = 8 * 1024 * 1024  # bytes
_PARTS: Final = 4  # of a file at a time
_FILES: Final = 4  # at a time
_DELAYS: Final = (0.5, 1.0, 2.0)  # seconds before a list is requested again
_DIGEST: Final = "conch-sha256"  # user metadata of an object
_TERMS: Final = replace(TERMS, rights="they may write to")
_METADATA: Final = "/latest/"  # the path of a cloud's metadata server, in the error where that has no credentials


async def push(upload: Upload, uri: str, advance: Advance) -> Outcome:
    """Upload a folder below a prefix.

    Args:
        upload: The upload.
        uri: s3://bucket/prefix.
        advance: Counts the bytes.

    Raises:
        CommandError: The prefix has other files, or a file has changed.
        Failure: A setting is invalid, or the store refuses a request.
    """
    bucket, prefix = _parse_uri(uri)
    values, outcome, semaphore = read_environment(uri), Outcome(uri), asyncio.Semaphore(_FILES)
    settings = parse_settings(values)
    await _refuse_others(uri, values, upload)
    endpoint = settings.endpoint.url if settings.endpoint else ""
    try:
        store: Any = from_url(f"s3://{bucket}", client_options=_build_options(settings))

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
        await run_all(map(send, first))
        await send(last)
    except Exception as error:
        if change := find_change(error):
            raise change from None
        if not is_client_error(error):
            raise
        if _METADATA in str(error):
            raise CommandError(f"{uri}: no credentials; set {_TERMS.credentials} in the environment") from None
        raise classify(error, Target(uri, bucket, endpoint, is_signed=settings.is_signed), _TERMS) from None
    return outcome


def _parse_uri(uri: str) -> tuple[str, str]:
    """Return bucket and prefix."""
    bucket, _, path = uri.removeprefix("s3://").partition("/")
    if not has_form(uri) or "//" in path:
        raise CommandError(f"{uri!r}: expected {SCHEMES['s3'].form}, without '?', '#' and folders without a name")
    return bucket, path.strip("/")


async def _refuse_others(uri: str, values: Mapping[str, str], upload: Upload) -> None:
    """Refuse a prefix with other files: an agent fetches them too, and they have no digest and no signature."""
    try:
        listing = await _list(uri, values)
    except Failure as failure:
        if failure.reason in {Reason.EMPTY, Reason.NOT_FOUND, Reason.BUCKET_NOT_FOUND, Reason.ACCESS_DENIED}:
            return  # who may write may not list
        raise
    own = {file.path for file in upload.files}
    if others := sorted(str(item.path) for item in listing.items if str(item.path) not in own):
        raise CommandError(
            f"{uri} has other files, which an agent would fetch too: {join_some(others)}; push to a prefix of its own,"
            " or remove them"
        )


async def _list(uri: str, values: Mapping[str, str]) -> Listing:
    """Return what an agent would list, also if the store does not answer for a moment."""
    for delay in _DELAYS:
        try:
            return await S3Source(f"{uri.rstrip('/')}/", values).list_files()
        except Failure as failure:
            if not failure.is_outage:
                raise
        await asyncio.sleep(delay)
    return await S3Source(f"{uri.rstrip('/')}/", values).list_files()


def _build_options(settings: S3Settings) -> Any:
    """Return the client's options: TLS is required, unless the environment sets an endpoint of http://."""
    is_plain = settings.endpoint is not None and not settings.endpoint.is_secure
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
