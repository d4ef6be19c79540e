"""A hub of model repositories with the HTTP API of huggingface.co: what its client, huggingface_hub, requests.

Large files are those of Git LFS: the hub redirects to another server, as to a CDN. The tests compare what the agent and
huggingface_hub fetch from it.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from tests.support.web import serve_apps

LFS: Final = 1000  # bytes from which a file is one of Git LFS
SIGNATURE: Final = "a+b/c="
Fault = Callable[[web.Request], web.StreamResponse | None]


@dataclass
class Repository:
    """A repository: files by commit, and commits by branch or tag."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)
    is_private: bool = False
    is_gated: bool = False

    def find_commit(self, revision: str) -> str:
        """Return the commit of a revision; empty: there is none."""
        return self.references.get(revision, revision if revision in self.commits else "")


@dataclass
class Hub:
    """A hub, which runs in a thread. `requests` are those it got: path with query, and the token or empty."""

    url: str = ""
    cdn: str = ""
    token: str = "hf_token"
    page: int = 2  # files of a page
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    cdn_requests: list[tuple[str, str]] = field(default_factory=list)
    fault: Fault = lambda _: None  # what it answers in place of its own answer
    cdn_fault: Fault = lambda _: None

    def commit(self, name: str, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Commit the files of a repository to a branch; return the commit."""
        repository = self.repositories.setdefault(name, Repository())
        text = "".join(f"{path}\0{hash_blob(content)}" for path, content in sorted(files.items()))
        commit = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        repository.commits[commit] = dict(files)
        repository.references[branch] = commit
        return commit

    def build_app(self) -> web.Application:
        """Return the hub's application."""
        app = web.Application()
        prefix = "/api/models/{owner}/{name}"
        app.router.add_get(prefix, self._answer_info)
        app.router.add_get(prefix + "/revision/{revision}", self._answer_info)
        app.router.add_get(prefix + "/tree/{revision}", self._answer_tree)
        app.router.add_get(prefix + "/tree/{revision}/{path:.+}", self._answer_tree)
        app.router.add_get("/{owner}/{name}/resolve/{revision}/{path:.+}", self._answer_file)
        return app

    def build_cdn(self) -> web.Application:
        """Return the application of the server of large files, whose URLs are signed."""
        app = web.Application()
        app.router.add_get("/{sha256}", self._answer_blob)
        return app

    def _find(self, request: web.Request) -> tuple[Repository, str]:
        """Return repository and commit of a request.

        Raises:
            web.HTTPException: There is none, or it may not be read.
        """
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.requests.append((str(request.rel_url), token))
        if token not in {"", self.token}:
            raise _build_error(web.HTTPUnauthorized, "", "Invalid credentials in Authorization header")
        if (answer := self.fault(request)) is not None:
            raise _AnsweredError(answer)
        name = f"{request.match_info['owner']}/{request.match_info['name']}"
        repository = self.repositories.get(name)
        if repository is None or (repository.is_private and not token):
            kind = web.HTTPNotFound if token else web.HTTPUnauthorized
            raise _build_error(kind, "RepoNotFound", "Repository not found")
        revision = request.match_info.get("revision", "main")
        commit = repository.find_commit(revision)
        if not commit:
            raise _build_error(web.HTTPNotFound, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repository, commit

    async def _answer_info(self, request: web.Request) -> web.StreamResponse:
        try:
            repository, commit = self._find(request)
        except _AnsweredError as answered:
            return answered.answer
        name = f"{request.match_info['owner']}/{request.match_info['name']}"
        files = [{"rfilename": path} for path in repository.commits[commit]]
        gated = "manual" if repository.is_gated else False
        private = repository.is_private
        return web.json_response(
            {"id": name, "modelId": name, "sha": commit, "siblings": files, "private": private, "gated": gated}
        )

    async def _answer_tree(self, request: web.Request) -> web.StreamResponse:
        try:
            repository, commit = self._find(request)
        except _AnsweredError as answered:
            return answered.answer
        folder = request.match_info.get("path", "")
        entries = list(_list_tree(repository.commits[commit], folder, request.query.get("recursive") == "true"))
        if folder and not entries:
            raise _build_error(web.HTTPNotFound, "EntryNotFound", f"{folder} does not exist on {commit}")
        start = int(request.query.get("cursor", "0"))
        headers = {}
        if start + self.page < len(entries):
            following = request.rel_url.update_query(cursor=start + self.page)
            headers["Link"] = f'<{self.url}{following}>; rel="next"'
        return web.json_response(entries[start : start + self.page], headers=headers)

    async def _answer_file(self, request: web.Request) -> web.StreamResponse:
        try:
            repository, commit = self._find(request)
        except _AnsweredError as answered:
            return answered.answer
        if repository.is_gated and not request.headers.get("Authorization"):
            raise _build_error(web.HTTPUnauthorized, "GatedRepo", "Access to this model is restricted.")
        content = repository.commits[commit].get(request.match_info["path"])
        if content is None:
            raise _build_error(web.HTTPNotFound, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hash_blob(content)}"'}
        if len(content) < LFS:
            return _answer_content(request, content, headers)
        sha256 = hashlib.sha256(content).hexdigest()
        headers |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{sha256}"'}
        headers["Location"] = f"{self.cdn}/{sha256}?Signature=a%2Bb%2Fc%3D&Expires=1"
        return web.Response(status=302, headers=headers)

    async def _answer_blob(self, request: web.Request) -> web.StreamResponse:
        self.cdn_requests.append((str(request.rel_url), request.headers.get("Authorization", "")))
        if (answer := self.cdn_fault(request)) is not None:
            return answer
        if request.query.get("Signature") != SIGNATURE:
            return web.Response(status=403, text="SignatureDoesNotMatch")
        sha256 = request.match_info["sha256"]
        contents = (
            content
            for each in self.repositories.values()
            for files in each.commits.values()
            for content in files.values()
        )
        found = next((content for content in contents if hashlib.sha256(content).hexdigest() == sha256), None)
        return web.Response(status=404) if found is None else _answer_content(request, found, {})


class _AnsweredError(Exception):
    """A fault's answer."""

    def __init__(self, answer: web.StreamResponse) -> None:
        super().__init__()
        self.answer = answer


def hash_blob(content: bytes) -> str:
    """Return the id of a content as a Git blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _list_tree(files: Mapping[str, bytes], folder: str, recursive: bool) -> Iterator[dict[str, Any]]:
    prefix = f"{folder}/" if folder else ""
    below = {path: content for path, content in sorted(files.items()) if path.startswith(prefix)}
    parents = {
        prefix + path.removeprefix(prefix)[:position] for path in below for position in _find_slashes(path, prefix)
    }
    for parent in sorted(parents):
        if recursive or "/" not in parent.removeprefix(prefix):
            yield {
                "type": "directory",
                "oid": hashlib.sha1(parent.encode(), usedforsecurity=False).hexdigest(),
                "size": 0,
                "path": parent,
            }
    for path, content in below.items():
        if recursive or "/" not in path.removeprefix(prefix):
            yield _describe(path, content)


def _find_slashes(path: str, prefix: str) -> list[int]:
    return [position for position, letter in enumerate(path.removeprefix(prefix)) if letter == "/"]


def _describe(path: str, content: bytes) -> dict[str, Any]:
    entry = {"type": "file", "oid": hash_blob(content), "size": len(content), "path": path}
    if len(content) < LFS:
        return entry
    sha256 = hashlib.sha256(content).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n".encode()
    lfs = {"oid": sha256, "size": len(content), "pointerSize": len(pointer)}
    return {**entry, "oid": hash_blob(pointer), "lfs": lfs}


def _answer_content(request: web.Request, content: bytes, headers: Mapping[str, str]) -> web.Response:
    start = request.http_range.start or 0
    if not start:
        return web.Response(body=content, headers={**headers, "Accept-Ranges": "bytes"})
    ranged = {**headers, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
    return web.Response(status=206, body=content[start:], headers=ranged)


def _build_error(kind: type[web.HTTPException], code: str, message: str) -> web.HTTPException:
    headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return kind(headers=headers, text=f'{{"error": "{message}"}}', content_type="application/json")


@contextmanager
def serve_hub(context: ssl.SSLContext | None = None) -> Iterator[Hub]:
    """Serve a hub and its server of large files on loopback, in a thread; both have other ports, so other origins."""
    hub = Hub()
    with serve_apps(hub.build_app(), hub.build_cdn(), context=context) as (hub.url, hub.cdn):
        yield hub
