"""The upload of one file by HTTP PUT, such as to WebDAV, a signed URL or a repository of artifacts."""

from __future__ import annotations

import hashlib
import os
from typing import Final

import aiohttp

from conch.cli.model.push.plan import Advance, Outcome, Upload, read_chunks
from conch.cli.options import CommandError

_HEADER: Final = "CONCH_HTTP_AUTHORIZATION"  # variable of the header Authorization
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=30, sock_read=300)
_TEXT: Final = 300  # characters of an answer


async def push(upload: Upload, uri: str, advance: Advance) -> Outcome:
    """Upload the one file of an upload to a URL, unless the URL has it.

    Args:
        upload: The upload.
        uri: The URL.
        advance: Counts the bytes.

    Raises:
        CommandError: The server refuses the file.
    """
    [file] = upload.files
    shown = uri.partition("?")[0]  # a signed URL has its credentials in the query
    authorization = os.environ.get(_HEADER)
    headers = {"Authorization": authorization} if authorization else {}
    try:
        async with aiohttp.ClientSession(timeout=_TIMEOUT, headers=headers) as session:
            if await _has(session, uri, upload):
                advance(file.size)
                return Outcome(shown, present=[file.path])
            body = _read(upload, advance)
            size = {"Content-Length": str(file.size)}
            async with session.put(uri, data=body, headers=size, allow_redirects=False) as answer:
                if answer.status not in {200, 201, 204}:
                    text = " ".join((await answer.content.read(_TEXT)).decode(errors="replace").split())
                    raise CommandError(
                        f"{shown}: the server answered {answer.status} {answer.reason or ''} {text}; expected a server"
                        f" that takes PUT. If it needs a login, set {_HEADER} to the value of the header Authorization"
                    )
    except (aiohttp.ClientError, TimeoutError) as error:
        raise CommandError(
            f"{shown}: {type(error).__name__}, no complete answer; correct the URL, or run the command again"
        ) from None
    return Outcome(shown, sent=[file.path])


async def _read(upload: Upload, advance: Advance):  # type: ignore[no-untyped-def]  # noqa: ANN202  an async generator
    for chunk in read_chunks(upload, upload.files[0], advance):
        yield chunk


async def _has(session: aiohttp.ClientSession, uri: str, upload: Upload) -> bool:
    """Return True if the URL has the file: equal size, and an ETag that is its MD5, as many servers compute it."""
    [file] = upload.files
    async with session.head(uri) as answer:
        tag = answer.headers.get("ETag", "").strip('"')
        if (
            answer.status != 200
            or answer.content_length != file.size
            or len(tag) != hashlib.md5(usedforsecurity=False).digest_size * 2
        ):
            return False
    with (upload.folder / file.path).open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == tag
