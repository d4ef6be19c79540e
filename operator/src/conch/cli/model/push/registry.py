"""Uploads to registries of the Open Container Initiative: each file is a layer with its path as its title.

Source: OCI distribution specification 1.1, "Pushing". Blobs that the registry has are not sent. The config of the
artifact is empty, and its annotations have the texts of the content manifest.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
from yarl import URL

from conch.cli.model.environment import read_environment
from conch.cli.model.manifest import ContentManifest, File
from conch.cli.model.push.plan import Advance, Outcome, Upload, find_change, read_chunks
from conch.cli.options import CommandError
from conch_agent.sources.answer import to_one_line
from conch_agent.sources.connection import build_context, build_options, check_proxy
from conch_agent.sources.destinations import Destinations, RefusedAddressError
from conch_agent.sources.http_answers import read_text
from conch_agent.sources.http_client import HttpClient
from conch_agent.sources.oci_access import Access
from conch_agent.sources.oci_challenge import parse_challenges
from conch_agent.sources.oci_documents import MOST_LAYERS
from conch_agent.sources.oci_errors import read_oci_error
from conch_agent.sources.oci_registry import LONGEST_MANIFEST
from conch_agent.sources.oci_settings import parse_settings
from conch_agent.sources.oci_uri import Artifact, parse_uri
from conch_agent.tasks import run_all

_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_ARTIFACT: Final = "application/vnd.conch.model.v1"
_FILE: Final = "application/octet-stream"
_EMPTY: Final = b"{}"
_TITLE: Final = "org.opencontainers.image.title"
_FILES: Final = 4  # at a time
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=30, sock_read=300)  # of an answer, after the bytes are sent
_LOG_IN: Final = "Log in with a user who may push (docker login)"
Body = Callable[[], Any]


async def push(upload: Upload, manifest: ContentManifest | None, uri: str, advance: Advance) -> Outcome:
    """Upload a folder as an artifact.

    Args:
        upload: The upload.
        manifest: The content manifest; None: there is none.
        uri: oci://host/name:tag.
        advance: Counts the bytes.

    Raises:
        CommandError: The registry refuses a request.
        Failure: The URI or the login is invalid, or the registry cannot be reached.
    """
    artifact = parse_uri(uri)
    if artifact.path or ":" in artifact.reference:
        raise CommandError(f"{uri}: expected a tag, and no digest or path, such as oci://host/name:v1")
    document = _write_document(upload, manifest)
    semaphore = asyncio.Semaphore(_FILES)
    outcome = Outcome(uri)
    async with Registry(uri, artifact).open() as registry:

        async def send(file: File) -> None:
            async with semaphore:
                is_sent = await registry.push_blob(
                    f"sha256:{file.sha256}", file.size, lambda: _read(upload, file, advance)
                )
                (outcome.sent if is_sent else outcome.present).append(file.path)
                if not is_sent:
                    advance(file.size)

        await run_all(map(send, upload.files))
        await registry.push_blob(f"sha256:{hashlib.sha256(_EMPTY).hexdigest()}", len(_EMPTY), lambda: _EMPTY)
        await registry.push_manifest(document)
    return outcome


async def _read(upload: Upload, file: File, advance: Advance) -> AsyncGenerator[bytes, None]:
    for chunk in read_chunks(upload, file, advance):
        yield chunk


def _write_document(upload: Upload, manifest: ContentManifest | None) -> bytes:
    """Return the artifact's manifest, if agents take one of its size."""
    document = json.dumps(build_document(upload, manifest)).encode()
    if len(upload.files) > MOST_LAYERS or len(document) > LONGEST_MANIFEST:
        raise CommandError(
            f"{upload.folder} has {len(upload.files)} files, with names of {len(document)} bytes in a manifest; agents"
            f" take {MOST_LAYERS} files and {LONGEST_MANIFEST} bytes from a registry, so push to s3:// or https://"
        )
    return document


def build_document(upload: Upload, manifest: ContentManifest | None) -> dict[str, Any]:
    """Return the artifact's manifest.

    Args:
        upload: The upload.
        manifest: The content manifest; None: there is none.
    """
    empty = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": f"sha256:{hashlib.sha256(_EMPTY).hexdigest()}"}
    layers = [
        {
            "mediaType": _FILE,
            "digest": f"sha256:{file.sha256}",
            "size": file.size,
            "annotations": {_TITLE: file.path},
        }
        for file in upload.files
    ]
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "artifactType": _ARTIFACT,
        "config": {**empty, "size": len(_EMPTY)},
        "layers": layers,
    }
    if annotations := _build_annotations(manifest):
        document["annotations"] = annotations
    return document


def _build_annotations(manifest: ContentManifest | None) -> dict[str, str]:
    if manifest is None:
        return {}
    texts = {
        "created": manifest.created.isoformat().replace("+00:00", "Z"),
        "version": manifest.version,
        "authors": manifest.author,
        "description": manifest.notes,
    }
    return {f"org.opencontainers.image.{name}": text for name, text in texts.items() if text}


class Registry:
    """The writing side of a registry, for one artifact."""

    def __init__(self, uri: str, artifact: Artifact) -> None:
        settings = parse_settings(read_environment(uri))
        self._uri = uri
        self._artifact = artifact
        self._url = f"{'http' if settings.plain_http else 'https'}://{artifact.api_host}"
        self._client = HttpClient(
            uri,
            "the target",
            Destinations.of_url(self._url),
            build_context(settings.authorities),
            settings.find_proxies(),
            "Install the issuer's certificate on this machine",
        )
        self._access = Access(uri, artifact, settings, self._client, actions="pull,push")
        self._access.remedy = _LOG_IN
        self._session: aiohttp.ClientSession

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Registry, None]:
        """Keep connections while the block is active.

        Raises:
            Failure: The registry cannot be reached.
        """
        async with self._client.open_session() as self._session:
            try:
                yield self
            except (aiohttp.ClientError, TimeoutError, RefusedAddressError) as error:
                if change := find_change(error):
                    raise change from None
                raise await self._client.build_failure(error, self._url) from error

    async def push_blob(self, digest: str, size: int, body: Body) -> bool:
        """Upload a blob; return False if the registry has it.

        Args:
            digest: Its digest.
            size: Its size in bytes.
            body: Returns its bytes, once more for a request that is repeated.

        Raises:
            CommandError: The registry refuses it.
        """
        url = URL(self._url + self._artifact.build_blob_path(digest))
        async with self._send("HEAD", url, {200, 404}) as answer:
            if answer.status == 200:
                return False
        uploads = URL(f"{self._url}/v2/{self._artifact.name}/blobs/uploads/")
        async with self._send("POST", uploads, {202}, {"Content-Length": "0"}) as answer:
            target = self._find_upload(uploads, answer.headers.get("Location", "")).update_query({"digest": digest})
        headers = {"Content-Type": _FILE, "Content-Length": str(size)}
        async with self._send("PUT", target, {201}, headers, body):
            return True

    def _find_upload(self, uploads: URL, location: str) -> URL:
        """Return the URL that the registry names for the bytes of a blob."""
        try:
            found = uploads.join(URL(location, encoded=True))
            self._client.destinations.check(found.host or "", ())
            if location and found.host and found.scheme == uploads.scheme:
                return found
        except ValueError:
            pass
        raise CommandError(
            f"{self._uri}: the registry names {to_one_line(location)!r} for an upload; expected a URL of"
            f" {uploads.scheme}://. Correct the target, or that registry"
        )

    async def push_manifest(self, content: bytes) -> None:
        """Upload the manifest of the artifact, under its tag.

        Args:
            content: The manifest.

        Raises:
            CommandError: The registry refuses it.
        """
        url = URL(self._url + self._artifact.build_manifest_path(self._artifact.reference))
        async with self._send("PUT", url, {201}, {"Content-Type": _MANIFEST}, lambda: content):
            return

    @asynccontextmanager
    async def _send(
        self,
        method: str,
        url: URL,
        expected: set[int],
        headers: Mapping[str, str] | None = None,
        body: Body = lambda: None,
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """Yield an expected answer. A request that the registry denies is sent once more, with what it requires."""
        for is_last in (False, True):
            sent = {**(headers or {}), **(self._access.headers if self._is_own(url) else {})}
            proxy = self._client.proxies.find(url)
            options = build_options(url, sent, proxy)
            async with self._session.request(method, url, data=body(), timeout=_TIMEOUT, **options) as answer:
                check_proxy(answer, proxy)
                if answer.status in expected:
                    yield answer
                    return
                challenges = parse_challenges(answer.headers.getall("WWW-Authenticate", []))
                error = read_oci_error(answer.status, answer.reason or "", await read_text(answer))
            may_renew = answer.status == 401 and self._is_own(url) and not is_last
            if not may_renew or not await self._access.renew(challenges):
                raise CommandError(
                    f"{self._uri}: the registry answered {method} {url.path} with {error.words}; correct the target,"
                    " or log in with a user who may push (docker login)"
                )

    def _is_own(self, url: URL) -> bool:
        return url.origin() == URL(self._url).origin()
