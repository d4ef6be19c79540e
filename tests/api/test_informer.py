"""The informer on a real API server: what it lists, what a watch brings, and what it does when both fail."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from conch.api.kinds import CONFIG_MAP, CONTROLLER_REVISION
from conch.events.informer import Cache, Informer
from conch.shutdown import RestartError
from conch.write import Server
from conch.write.lists import Listing, list_objects, list_pages
from tests.cluster import Cluster
from tests.support.faults import Faults, Lines
from tests.support.kube import Kube, Object

SECONDS = 60.0


class Known:
    """What an informer has put into its cache: objects by name."""

    def __init__(self) -> None:
        self.objects: dict[str, Mapping[str, Any]] = {}
        self.retained: list[int] = []  # how many objects each list had
        self.cache = Cache(self._put, self._delete, self._retain)

    def _put(self, body: Mapping[str, Any]) -> None:
        if body.get("data", {}).get("error"):
            raise KeyError("error")
        self.objects[body["metadata"]["name"]] = body

    def _delete(self, body: Mapping[str, Any]) -> None:
        del self.objects[body["metadata"]["name"]]

    def _retain(self, uids: frozenset[str], version: int | None) -> None:
        self.retained.append(len(uids))
        self.objects = {
            name: body
            for name, body in self.objects.items()
            if body["metadata"]["uid"] in uids
            or (version is not None and int(body["metadata"]["resourceVersion"]) > version)
        }

    @property
    def names(self) -> list[str]:
        """The names, in order."""
        return sorted(self.objects)


@contextlib.asynccontextmanager
async def informed(
    kubeconfig: Path, listing: Listing, installed: Callable[[], object] = lambda: None
) -> AsyncIterator[Known]:
    """Run an informer; yield what it knows, once all is listed."""
    known = Known()
    async with await Server.connect(str(kubeconfig), connections=0) as server:
        informer = Informer(server, listing, known.cache, installed)
        task = asyncio.create_task(informer.run())
        try:
            async with asyncio.timeout(SECONDS):
                await informer.listed.wait()
            yield known
            assert not task.done(), task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def soon(look: Callable[[], object], what: str) -> None:
    """Wait until something is so."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SECONDS):
            while not look():  # noqa: ASYNC110  the condition has no event
                await asyncio.sleep(0.05)
    assert look(), what


def config_map(name: str, **data: str) -> Object:
    """Return a ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"a": "b"}}, "data": data}


async def call(function: Callable[..., object], *arguments: object) -> None:
    """Call what waits for kubectl or the API server, beside the informer."""
    await asyncio.get_running_loop().run_in_executor(None, lambda: function(*arguments))


async def test_an_informer_knows_objects_that_exist_and_that_come_change_and_go(
    cluster: Cluster, kube: Kube, namespace: str
) -> None:
    await call(kube.apply, [config_map(name) for name in ("one", "two")], namespace)
    async with informed(cluster.kubeconfig, Listing(CONFIG_MAP, namespace, "a=b")) as known:
        assert known.names == ["one", "two"]
        assert known.objects["one"]["kind"] == "ConfigMap"
        await call(kube.apply, config_map("three", text="a"), namespace)
        await soon(lambda: "three" in known.objects, "what comes is known")
        await call(kube.apply, config_map("three", text="b"), namespace)
        await soon(lambda: known.objects["three"]["data"] == {"text": "b"}, "what changes is known")
        await call(kube.run, "delete", "configmap", "one", f"--namespace={namespace}")
        await soon(lambda: known.names == ["three", "two"], "what goes is forgotten")
        await call(kube.run, "label", "configmap", "two", "a-", f"--namespace={namespace}")
        await soon(lambda: known.names == ["three"], "what loses the label is forgotten")


async def test_metadata_comes_without_the_rest(cluster: Cluster, kube: Kube, namespace: str) -> None:
    await call(kube.apply, config_map("one", text="a"), namespace)
    async with informed(cluster.kubeconfig, Listing(CONFIG_MAP, namespace, "a=b", metadata_only=True)) as known:
        await call(kube.apply, config_map("two", text="a"), namespace)
        await soon(lambda: known.names == ["one", "two"], "both are known")
        for body in known.objects.values():
            assert (body["kind"], body.get("data")) == ("ConfigMap", None)


async def test_an_object_that_cannot_be_read_hides_no_other(cluster: Cluster, kube: Kube, namespace: str) -> None:
    await call(kube.apply, [config_map("a", error="listed"), config_map("b")], namespace)
    async with informed(cluster.kubeconfig, Listing(CONFIG_MAP, namespace, "a=b")) as known:
        assert known.names == ["b"]
        await call(kube.apply, [config_map("c", error="watched"), config_map("d")], namespace)
        await soon(lambda: known.names == ["b", "d"], "the next one is known")
        assert len(known.retained) == 1, "the watch goes on"


def create_unfit(kube: Kube, namespace: str, folder: Path, name: str) -> None:
    """Create a ControllerRevision whose `data` is no Unicode: the API server stores and sends it as it came."""
    body: Object = {
        "apiVersion": CONTROLLER_REVISION.api_version,
        "kind": CONTROLLER_REVISION.name,
        "metadata": {"name": name, "labels": {"a": "b"}},
        "revision": 1,
        "data": {"half": "\ud83d", "bytes": "the bytes", "number": 2**64},
    }
    file = folder / name
    file.write_bytes(json.dumps(body).encode().replace(b"the bytes", b"\xff\xed\xa0\x80"))
    kube.feed(file, "create", f"--raw={CONTROLLER_REVISION.path(namespace)}", "--filename=-")


async def test_a_text_that_is_no_unicode_ends_no_list_and_no_watch(
    cluster: Cluster, kube: Kube, namespace: str, tmp_path: Path
) -> None:
    await call(create_unfit, kube, namespace, tmp_path, "listed")
    async with informed(cluster.kubeconfig, Listing(CONTROLLER_REVISION, namespace, "a=b")) as known:
        await call(create_unfit, kube, namespace, tmp_path, "watched")
        await soon(lambda: known.names == ["listed", "watched"], "both are known")
        assert len(known.retained) == 1, "the watch goes on"
        for body in known.objects.values():
            assert body["revision"] == 1
            assert body["data"]["half"] == "\N{REPLACEMENT CHARACTER}"
            assert set(body["data"]["bytes"]) == {"\N{REPLACEMENT CHARACTER}"}
            assert body["data"]["number"] == 2**64


async def forgets(faults: Faults, lines: Lines) -> Lines:
    """A watch ends before its first event: the API server no longer has the version from which it began."""
    async for _ in lines:
        faults.faults["forgotten"] += 1
        yield b'{"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}'
        return


async def test_an_object_that_was_deleted_between_a_watch_and_the_next_list_is_forgotten(
    cluster: Cluster, kube: Kube, namespace: str, tmp_path: Path
) -> None:
    """Every watch ends before its first event, and the API server no longer has the version from which it began."""
    await call(kube.apply, [config_map(name) for name in ("one", "two")], namespace)
    with Faults(cluster.kubeconfig, tmp_path) as faults:
        faults.mangle = forgets
        async with informed(faults.kubeconfig, Listing(CONFIG_MAP, namespace, "a=b")) as known:
            await call(kube.run, "delete", "configmap", "one", f"--namespace={namespace}")
            await soon(lambda: known.names == ["two"], "it is forgotten")
            assert faults.faults["forgotten"]
            await call(kube.apply, config_map("three"), namespace)
            await soon(lambda: known.names == ["three", "two"], "what came is known")


async def test_a_proxy_that_answers_404_to_everything_makes_nothing_forgotten(
    cluster: Cluster, kube: Kube, namespace: str, tmp_path: Path
) -> None:
    await call(kube.apply, [config_map(name) for name in ("one", "two")], namespace)
    with Faults(cluster.kubeconfig, tmp_path) as faults:
        faults.mangle = forgets
        async with informed(faults.kubeconfig, Listing(CONFIG_MAP, namespace, "a=b")) as known:
            faults.codes, faults.share = (404,), 1.0
            await call(kube.apply, config_map("three"), namespace)
            await soon(lambda: faults.faults["GET 404"] > 3, "the list is requested repeatedly")
            assert known.names == ["one", "two"]
            faults.mangle, faults.share = None, 0.0
            await soon(lambda: known.names == ["one", "three", "two"], "what came is known")


async def test_a_page_that_is_too_large_is_requested_in_parts(cluster: Cluster, kube: Kube, namespace: str) -> None:
    large = "x" * 900_000
    for number in range(7):
        await call(kube.create, CONFIG_MAP, config_map(f"c{number}", text=large), namespace)
    listing = Listing(CONFIG_MAP, namespace, "a=b")
    async with await Server.connect(str(cluster.kubeconfig)) as server:
        found = [page async for page in list_pages(server, listing)]
        assert max(len(page.items) for page in found) <= 2, "no more than 2 MiB at a time"
        assert sorted(item["metadata"]["name"] for page in found for item in page.items) == [f"c{n}" for n in range(7)]
        assert len({page.version for page in found}) == 1
        assert len([item async for item in list_objects(server, listing)]) == 7


async def test_an_old_list_is_not_believed(cluster: Cluster, kube: Kube, namespace: str) -> None:
    """A list without a version is never older than what was seen; one that is comes from a broken API server."""
    await call(kube.apply, config_map("one"), namespace)
    known = Known()
    async with await Server.connect(str(cluster.kubeconfig), connections=0) as server:
        informer = Informer(server, Listing(CONFIG_MAP, namespace, "a=b"), known.cache, _newest=2**62)
        with pytest.raises(RestartError, match="restored from a backup"):
            async with asyncio.timeout(SECONDS):
                await informer.run()
    assert known.retained == [], "nothing was forgotten because of it"
