"""The upload of one file by HTTP PUT, such as to WebDAV, a signed URL or a repository of artifacts."""

from __future__ import annotations

import hashlib
import os
import re
from typing import Final

import aiohttp
from yarl import URL

from conch.cli.model.push.plan import Advance, Outcome, Upload, find_change, read_chunks
from conch.cli.options import CommandError
from conch_agent.sources.answer import to_one_line
from conch_agent.sources.connection import build_options, check_proxy, explain
from conch_agent.sources.http_answers import read_error
from conch_agent.sources.https_settings import AUTHORIZATION
from conch_agent.sources.network import NetworkSettings

_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=30, sock_read=300)


async def push(upload: Upload, uri: str, advance: Advance) -> Outcome:
    """Upload the one file of an upload to a URL, unless the URL has it.

    Args:
        upload: The upload.
        uri: The URL.
        advance: Counts the bytes.

    Raises:
        CommandError: The server refuses the file.
        Failure: A proxy of the environment is invalid.
    """
    [file] = upload.files
    shown = check_uri(uri)
    authorization = os.environ.get(AUTHORIZATION, "").strip()
    if not re.fullmatch("[ -~]*", authorization):
        raise CommandError(
            f"{AUTHORIZATION} has a line break or a character that is not ASCII; write it as one line of ASCII"
        )
    headers = {"Authorization": authorization} if authorization else {}
    target = URL(uri)
    proxy = NetworkSettings().find_proxies().find(target)
    options = build_options(target, headers, proxy)
    try:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
            async with session.head(target, **options) as answer:
                check_proxy(answer, proxy)
            if _has(answer, upload):
                advance(file.size)
                return Outcome(shown, present=[file.path])
            body = _read(upload, advance)
            sized = {**options, "headers": {**options["headers"], "Content-Length": str(file.size)}}
            async with session.put(target, data=body, **sized) as answer:
                check_proxy(answer, proxy)
                if answer.status not in {200, 201, 204}:
                    words = to_one_line((await read_error(answer)).words)
                    raise CommandError(
                        f"{shown}: the server answered {answer.status} ({words}); expected a server that takes PUT. If"
                        f" it needs a login, set {AUTHORIZATION} to the value of the header Authorization"
                    )
    except (aiohttp.ClientError, TimeoutError) as error:
        if change := find_change(error):
            raise change from None
        if proxy:
            problem = explain(error, target.raw_host or "", target.port or 0, proxy)
            raise CommandError(f"{shown}: {problem.cause}. {problem.remedy}") from None
        raise CommandError(
            f"{shown}: {type(error).__name__}, no complete answer; correct the URL, or run the command again"
        ) from None
    return Outcome(shown, sent=[file.path])


def check_uri(uri: str) -> str:
    """Return a URL for messages: without its query, in which a signed URL has its credentials.

    Args:
        uri: The URL.

    Raises:
        CommandError: It is none, or has a user.

    >>> check_uri("https://host/m.tar.zst?sig=c2ln")
    'https://host/m.tar.zst'
    """
    try:
        url = URL(uri)
        problem = "names no host or no file; correct it" if not url.host or url.path.endswith("/") else ""
    except ValueError:
        raise CommandError("the target is no URL; expected https://host/path.tar.zst") from None
    if url.user is not None or url.password is not None:
        problem, url = (
            f"has a user, which everyone sees in the list of processes; set {AUTHORIZATION} in its place",
            url.with_user(None),
        )
    shown = str(url.with_query(None).with_fragment(None))
    if problem:
        raise CommandError(f"{shown} {problem}, and write https://host/path.tar.zst")
    return shown


async def _read(upload: Upload, advance: Advance):  # type: ignore[no-untyped-def]  # noqa: ANN202  an async generator
    for chunk in read_chunks(upload, upload.files[0], advance):
        yield chunk


def _has(answer: aiohttp.ClientResponse, upload: Upload) -> bool:
    """Return True if the URL has the file: equal size, and an ETag that is its MD5, as many servers compute it."""
    [file] = upload.files
    tag = answer.headers.get("ETag", "").strip('"')
    if (
        answer.status != 200
        or answer.content_length != file.size
        or len(tag) != hashlib.md5(usedforsecurity=False).digest_size * 2
    ):
        return False
    with (upload.folder / file.path).open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == tag
