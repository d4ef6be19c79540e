"""Requests to a registry (OCI distribution specification 1.1): manifests and blobs of one repository."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
from yarl import URL

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.connection import build_context
from conch_agent.sources.destinations import Destinations
from conch_agent.sources.http_answers import build_range, check_page, read_rest, read_text, read_whole
from conch_agent.sources.http_client import HttpClient
from conch_agent.sources.oci_access import Access
from conch_agent.sources.oci_challenge import parse_challenges
from conch_agent.sources.oci_documents import ACCEPT, Index, Manifest, parse_document
from conch_agent.sources.oci_errors import classify, classify_redirected, read_oci_error
from conch_agent.sources.oci_settings import OciSettings
from conch_agent.sources.oci_uri import Artifact
from conch_agent.threads import run_in_thread

LONGEST_MANIFEST: Final = 4 * 1024 * 1024  # bytes, which registries accept at least
_SECONDS: Final = 60  # for a manifest
_PLAINTEXT_REMEDY: Final = "Correct the port, or write OCI_PLAIN_HTTP=true into the storage Secret"
_PAGE_REMEDY: Final = "Correct that registry, or the proxy before it"
_DIGEST: Final = "sha256:"


class Registry:
    """A registry, for one storageUri. The login is sent to its own server and to the token service that it names."""

    def __init__(self, uri: str, artifact: Artifact, settings: OciSettings) -> None:
        self._uri = uri
        self._artifact = artifact
        self._url = f"{'http' if settings.plain_http else 'https'}://{artifact.api_host}"
        destinations, context = Destinations.of_url(self._url), build_context(settings.authorities)
        proxies = settings.find_proxies()
        self._client = HttpClient(uri, "storageUri", destinations, context, proxies, plaintext_remedy=_PLAINTEXT_REMEDY)
        self._access = Access(uri, artifact, settings, self._client)

    async def read_manifest(self, reference: str) -> tuple[str, Manifest | Index]:
        """Return the digest of a manifest or index, and its content.

        Args:
            reference: Its tag or digest.

        Raises:
            Failure: NotFound, AccessDenied, Unreachable, DigestMismatch for a content of another digest than the
                reference, or FetchFailed for an answer that is no manifest.
        """
        path = self._artifact.build_manifest_path(reference)
        try:
            async with asyncio.timeout(_SECONDS), self._get(path, {"Accept": ACCEPT}) as answer:
                body = await read_whole(answer, LONGEST_MANIFEST)
                media_type, declared = answer.content_type, answer.headers.get("Docker-Content-Digest", "")
        except TimeoutError:
            message = f"{self._uri}: the registry did not complete its answer in {_SECONDS} s. Read its log."
            raise Failure(Reason.UNREACHABLE, message) from None
        if body is None:
            message = (
                f"{self._uri}: the registry answered a manifest of more than {LONGEST_MANIFEST} bytes. Push the model"
                " in fewer layers, or correct that registry."
            )
            raise Failure(Reason.TOO_LARGE, message)
        digest = f"{_DIGEST}{hashlib.sha256(body).hexdigest()}"
        for expected in (reference, declared):
            if expected.startswith(_DIGEST) and expected != digest:
                message = (
                    f"{self._uri}: the registry answered a manifest with the digest {digest} in place of {expected}."
                    " The agent retries; if this stays, a server or proxy between changes answers: correct it."
                )
                raise Failure(Reason.DIGEST_MISMATCH, message)
        return digest, await run_in_thread(parse_document, body, media_type, self._uri)

    async def read_blob(self, digest: str, offset: int, size: int | None) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a blob in order.

        Args:
            digest: Its digest.
            offset: Number of bytes to skip.
            size: Its size in bytes.

        Raises:
            Failure: As `read_manifest`.
        """
        async with self._get(self._artifact.build_blob_path(digest), build_range(offset, size)) as answer:
            await check_page(answer, "", _PAGE_REMEDY)
            async for chunk in read_rest(answer, offset):
                yield chunk

    @asynccontextmanager
    async def _get(self, path: str, headers: Mapping[str, str]) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """Yield a successful answer. A request that the registry denies is sent once more, with what it requires."""
        for is_last in (False, True):
            async with self._client.get(self._url + path, headers, self._access.headers) as answer:
                if answer.status in {200, 206}:
                    yield answer
                    return
                failure = await self._build_failure(answer)
                is_own = answer.url.origin() == URL(self._url).origin()
                challenges = parse_challenges(answer.headers.getall("WWW-Authenticate", []))
            if is_last or failure.reason != Reason.ACCESS_DENIED or not is_own:
                raise failure
            if not await self._access.renew(challenges):
                raise failure

    async def _build_failure(self, answer: aiohttp.ClientResponse) -> Failure:
        error = read_oci_error(answer.status, answer.reason or "", await read_text(answer))
        if answer.url.origin() != URL(self._url).origin():
            return classify_redirected(error, answer.headers, self._uri, answer.url.host or "")
        return classify(error, answer.headers, self._uri, self._artifact, self._access.remedy)
