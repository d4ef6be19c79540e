"""Answers over HTTP: their bodies within bounds of bytes and time, and what a server answers in place of a file."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import Final

import aiohttp

from conch_agent.sources.answer import Answer, read_body, to_one_line
from conch_agent.sources.pace import Pace, StalledError

CHUNK: Final = 1024 * 1024  # bytes
LONGEST_ERROR: Final = 64 * 1024  # bytes of an error's body that are read
_CODINGS: Final = frozenset({"gzip", "x-gzip", "compress", "x-compress", "deflate", "br", "zstd"})
_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(?:\d+|\*)")


class WrongAnswerError(ValueError):
    """An answer that is not to the request. The text continues a sentence that begins with the server's name.

    Attributes:
        remedy: The remedy, a sentence without its full stop.
    """

    def __init__(self, text: str, remedy: str) -> None:
        super().__init__(text)
        self.remedy = remedy


# Errors of an answer, after its status and headers.
ANSWER_ERRORS: Final = (aiohttp.ClientError, TimeoutError, ValueError, StalledError)


async def read_error(answer: aiohttp.ClientResponse) -> Answer:
    """Return the error of an answer.

    Args:
        answer: The answer, whose status is that of an error.
    """
    return read_body(answer.status, answer.reason or "", await read_text(answer))


async def read_text(answer: aiohttp.ClientResponse) -> str:
    """Return the first 64 KiB of an answer's body, or fewer.

    Args:
        answer: The answer.
    """
    body = bytearray()
    async for block in read_blocks(answer):
        body += block
        if len(body) >= LONGEST_ERROR:
            break
    return bytes(body[:LONGEST_ERROR]).decode(errors="replace").strip()


async def read_whole(answer: aiohttp.ClientResponse, most: int) -> bytes | None:
    """Return the body of an answer; None if it is longer.

    Args:
        answer: The answer.
        most: The largest size in bytes.

    Raises:
        WrongAnswerError: The answer is compressed.
        StalledError: The server is slower than the least speed.
    """
    body = bytearray()
    async for block in read_rest(answer, 0):
        body += block
        if len(body) > most:
            return None
    return bytes(body)


async def read_blocks(answer: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    """Yield the body of an answer as it is sent.

    Args:
        answer: The answer.

    Raises:
        StalledError: The server is slower than the least speed.
    """
    pace = Pace()
    while block := await pace.wait(lambda: answer.content.read(CHUNK)):
        yield block


async def read_rest(answer: aiohttp.ClientResponse, offset: int) -> AsyncGenerator[bytes, None]:
    """Yield the bytes of a file from an offset. The bytes that a server without ranges repeats are skipped.

    Args:
        answer: The answer to a request for this range.
        offset: Number of bytes to skip.

    Raises:
        WrongAnswerError: The answer has another range, or is compressed.
        StalledError: The server is slower than the least speed.
    """
    check_coding(answer)
    if answer.status == 206:
        check_range(answer, offset)
    skip = offset if answer.status == 200 else 0
    async for block in read_blocks(answer):
        if skip < len(block):
            yield block[skip:]
        skip = max(0, skip - len(block))


async def check_page(answer: aiohttp.ClientResponse, path: str, remedy: str) -> None:
    """Refuse a web page in place of a file, such as that of a proxy which requires a login.

    Args:
        answer: A successful answer.
        path: The path of the file, which may itself be a page.
        remedy: The remedy, a sentence without its full stop.

    Raises:
        WrongAnswerError: It is one.
    """
    if answer.content_type == "text/html" and not path.endswith((".html", ".htm")):
        page = (await read_error(answer)).words
        raise WrongAnswerError(f"answered with a page ({page}) in place of the file", remedy)


def check_coding(answer: aiohttp.ClientResponse) -> None:
    """Refuse a compressed answer, which no request accepts: neither its size nor its ranges are those of the file.

    Args:
        answer: The answer.

    Raises:
        WrongAnswerError: It has a Content-Encoding that compresses.
    """
    codings = {coding.strip().lower() for coding in answer.headers.get("Content-Encoding", "").split(",")}
    if found := sorted(codings & _CODINGS):
        text = f"sent its answer with Content-Encoding {found[0]}, which was not requested"
        raise WrongAnswerError(text, "Turn compression off in the server, or in the proxy before it")


def check_range(answer: aiohttp.ClientResponse, start: int) -> None:
    """Refuse a part of a file that begins elsewhere.

    Args:
        answer: The answer, whose status is 206.
        start: The first byte that was requested.

    Raises:
        WrongAnswerError: It has another range, or none.
    """
    sent = answer.headers.get("Content-Range", "")
    match = _RANGE.fullmatch(sent)
    if not match or int(match[1]) != start:
        text = f"sent the range {to_one_line(sent)!r} of the file, and the bytes from {start} were requested"
        raise WrongAnswerError(text, "Correct the server, or the proxy before it")


def build_range(offset: int, size: int | None = None) -> dict[str, str]:
    """Return the header of a request for the bytes from an offset; empty: all are requested.

    Args:
        offset: Number of bytes to skip.
        size: Size of the whole file in bytes, for servers that take no range without an end; None: unknown.

    >>> build_range(0, 9), build_range(4), build_range(4, 9)
    ({}, {'Range': 'bytes=4-'}, {'Range': 'bytes=4-8'})
    """
    return {"Range": f"bytes={offset}-{'' if size is None else size - 1}"} if offset else {}
