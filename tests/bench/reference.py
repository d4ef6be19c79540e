"""R: the least that an asyncio controller can be. Conch's speed is a ratio to it, in one run.

It watches services, takes each once, and applies those of Conch's children that did not exist when it started. It
compares nothing, reports nothing and mends nothing. Run as `python -m tests.bench.reference`.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from prometheus_client import Counter, Gauge, start_http_server

from conch.api import InferenceService
from conch.api.child_kinds import CHILDREN, OPTIONAL
from conch.api.kinds import INFERENCE_SERVICE, Ref, kind_of, ref_of
from conch.api.names import FIELD_MANAGER
from conch.decide import decide
from conch.desire import PodDefaults, desire
from conch.observe import Snapshot
from conch.write import Server
from conch.write.lists import Listing, list_objects
from conch_contract import names

WORKERS = 16


class Metrics:
    """R's metrics, with Conch's names, as `controllers.py` reads them: one process has those of one of the two."""

    def __init__(self) -> None:
        self.results = Counter("conch_reconciles", "Services that have their children, by result.", ["result"])
        self.depth = Gauge("conch_queue_depth", "Services in the queue.")
        self.active = Gauge("conch_queue_active", "Services whose children are being applied.")


async def list_children(server: Server) -> set[Ref]:
    """Return the children that exist."""
    kinds = [kind for kind in CHILDREN if kind not in OPTIONAL]
    listings = (Listing(kind, os.environ["NAMESPACE"], names.LABEL_SERVICE, metadata_only=True) for kind in kinds)
    return {ref_of(body) for listing in listings async for body in list_objects(server, listing)}


async def watch(server: Server, queue: asyncio.Queue[dict[str, Any]]) -> None:
    """Put every new service on the queue."""
    seen: set[str] = set()
    while True:
        answer = await server.client.call_api(
            INFERENCE_SERVICE.path(os.environ["NAMESPACE"]),
            "GET",
            query_params=[("watch", "1")],
            auth_settings=["BearerToken"],
            _preload_content=False,
        )
        async for line in answer.content:
            body = json.loads(line)["object"]
            if body["metadata"]["uid"] not in seen:
                seen.add(body["metadata"]["uid"])
                queue.put_nowait(body)


async def work(server: Server, queue: asyncio.Queue[dict[str, Any]], existing: set[Ref], metrics: Metrics) -> None:
    """Apply the children of one service after the other, and one status."""
    while True:
        body = await queue.get()
        with metrics.active.track_inprogress():
            await apply(server, body, existing)
        metrics.results.labels("settled").inc()


async def apply(server: Server, body: dict[str, Any], existing: set[Ref]) -> None:
    """Apply the children of a service that do not exist, and its first status."""
    snapshot = Snapshot(service=InferenceService.parse(body), now=0.0)
    for child in desire(snapshot, decide(snapshot), PodDefaults("conch/serving:test")):
        if ref_of(child) not in existing:
            await server.apply(kind_of(child), child, FIELD_MANAGER)
    meta = {key: body["metadata"][key] for key in ("name", "namespace")}
    status = {"observedGeneration": body["metadata"]["generation"]}
    if body.get("status") != status:
        with_status = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": meta, "status": status}
        await server.apply_status(INFERENCE_SERVICE, with_status, FIELD_MANAGER)


async def main() -> None:
    """Run until ended."""
    queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    metrics = Metrics()
    metrics.depth.set_function(queue.qsize)
    async with await Server.connect() as server, asyncio.TaskGroup() as group:
        existing = await list_children(server)
        start_http_server(int(os.environ["CONCH_METRICS_PORT"]), "127.0.0.1")
        group.create_task(watch(server, queue))
        for _ in range(WORKERS):
            group.create_task(work(server, queue, existing, metrics))


if __name__ == "__main__":
    asyncio.run(main())
