"""Requests to a hub with the API of huggingface.co: the commit of a revision, lists of files, and their bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final, TypeVar

import aiohttp
from pydantic import TypeAdapter
from yarl import URL

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.answer import to_one_line
from conch_agent.sources.connection import build_context
from conch_agent.sources.destinations import Destinations
from conch_agent.sources.hf_answers import REVISION, TREE, TreeFile, parse_answer
from conch_agent.sources.hf_errors import ENTRY_NOT_FOUND, classify, classify_redirected
from conch_agent.sources.hf_settings import HfSettings
from conch_agent.sources.hf_uri import HubPath
from conch_agent.sources.http_answers import build_range, check_page, read_error, read_rest, read_whole
from conch_agent.sources.http_client import HttpClient
from conch_agent.sources.listing_limit import ListingLimit
from conch_agent.threads import run_in_thread

_LONGEST_ANSWER: Final = 4 * 1024 * 1024  # bytes; a page of the hub has 1,000 files
_MOST_PAGES: Final = 1000
_SECONDS: Final = 60  # for an answer of the API
_REMEDY: Final = "Correct HF_ENDPOINT in the storage Secret, or that hub."

_T = TypeVar("_T")


class EntryNotFoundError(Exception):
    """The commit has no such folder. `failure` is for a storageUri that names it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Hub:
    """A hub, for one storageUri. The token is sent to its own server alone."""

    def __init__(self, uri: str, place: HubPath, settings: HfSettings) -> None:
        self._uri = uri
        self._place = place
        self._url = settings.endpoint.url
        self._credentials = {"Authorization": f"Bearer {settings.token}"} if settings.token else {}
        setting, context = "HF_ENDPOINT in the storage Secret", build_context(settings.authorities)
        destinations, proxies = Destinations(settings.endpoint.host), settings.find_proxies()
        self._client = HttpClient(uri, setting, destinations, context, proxies)

    async def find_commit(self) -> str:
        """Return the commit of the revision.

        Raises:
            Failure: NotFound, AccessDenied, Unreachable, or FetchFailed for an answer that is not a hub's.
        """
        info, _ = await self._read(self._url + self._place.info_url, REVISION)
        return info.sha

    async def list_folder(self, commit: str, folder: str, *, recursive: bool) -> list[TreeFile]:
        """Return the files of a folder from all pages of its list.

        Args:
            commit: The commit.
            folder: Path of the folder; empty: the whole repository.
            recursive: True for the files of its folders too.

        Raises:
            EntryNotFoundError: The commit has no such folder.
            Failure: As `find_commit`, and TooLarge.
        """
        url = self._url + self._place.build_tree_url(commit, folder, recursive=recursive)
        files: list[TreeFile] = []
        visited: set[str] = set()
        async with ListingLimit(self._uri).run() as limit:
            while url and len(visited) < _MOST_PAGES:
                visited.add(url)
                page, url = await self._read(url, TREE)
                files += (entry for entry in page if isinstance(entry, TreeFile))
                limit.add(len(page))
                if url in visited:
                    message = (
                        f"{self._uri}: the hub at {self._url} links the page {to_one_line(url)} of its list twice."
                    )
                    raise Failure(Reason.FETCH_FAILED, f"{message} {_REMEDY}")
        if url:
            message = f"{self._uri}: the hub at {self._url} lists over {_MOST_PAGES} pages of files."
            raise Failure(Reason.TOO_LARGE, f"{message} Point storageUri at the model's folder.")
        return files

    async def read_file(self, commit: str, path: str, offset: int) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a file in order.

        Args:
            commit: The commit.
            path: Path of the file.
            offset: Number of bytes to skip.

        Raises:
            Failure: As `find_commit`.
        """
        url = self._url + self._place.build_file_url(commit, path)
        async with self._client.get(url, build_range(offset), self._credentials) as answer:
            if answer.status not in {200, 206}:
                raise await self._build_failure(answer)
            await check_page(answer, path, _REMEDY.removesuffix("."))
            async for chunk in read_rest(answer, offset):
                yield chunk

    async def _read(self, url: str, form: TypeAdapter[_T]) -> tuple[_T, str]:
        """Return an answer of the API, and the URL of the next page; empty: there is none."""
        try:
            async with asyncio.timeout(_SECONDS), self._client.get(url, {}, self._credentials) as answer:
                if answer.status != 200:
                    failure = await self._build_failure(answer)
                    if answer.headers.get("X-Error-Code") == ENTRY_NOT_FOUND:
                        raise EntryNotFoundError(failure)
                    raise failure
                body = await self._read_body(answer)
                link = answer.links["next"]["url"] if "next" in answer.links else ""
        except TimeoutError:
            message = (
                f"{self._uri}: the server at {self._url} did not complete its answer in {_SECONDS} s. See its log."
            )
            raise Failure(Reason.UNREACHABLE, message) from None
        value = await run_in_thread(parse_answer, body, form, self._uri, self._url)
        return value, self._check_page(link) if link else ""

    async def _read_body(self, answer: aiohttp.ClientResponse) -> bytes:
        body = await read_whole(answer, _LONGEST_ANSWER)
        if body is None:
            message = f"{self._uri}: the server at {self._url} answered more than {_LONGEST_ANSWER} bytes of a list."
            raise Failure(Reason.FETCH_FAILED, f"{message} {_REMEDY}")
        return body

    async def _build_failure(self, answer: aiohttp.ClientResponse) -> Failure:
        error = await read_error(answer)
        if answer.url.origin() != URL(self._url).origin():
            return classify_redirected(error, answer.headers, self._uri, answer.url.host or "")
        return classify(error, answer.headers, self._uri, self._place, self._url)

    def _check_page(self, link: object) -> str:
        """Return the URL of the next page. The token is sent there, so that it is of the same server."""
        try:
            origin = URL(str(link)).origin()
        except ValueError:  # mailto:, or no host
            origin = None
        if origin != URL(self._url).origin():
            message = (
                f"{self._uri}: the hub at {self._url} has the next page of its list at {origin or 'no URL'}, which is"
                " not followed. Configure the hub to write its own address into the header Link."
            )
            raise Failure(Reason.FETCH_FAILED, message)
        return str(link)
