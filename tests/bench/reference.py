"""R: the least that an asyncio controller can be. Conch's speed is a ratio to it, in one run.

It watches services, takes each once, and applies the same children as Conch. It checks nothing, keeps
nothing, reports nothing and mends nothing. Run as `python -m tests.bench.reference`.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from conch.api import InferenceService
from conch.api.kinds import INFERENCE_SERVICE, kind_of
from conch.api.names import FIELD_MANAGER
from conch.decide import decide
from conch.desire import PodDefaults, desire
from conch.observe import Snapshot
from conch.write import Server

WORKERS = 16


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


async def work(server: Server, queue: asyncio.Queue[dict[str, Any]]) -> None:
    """Apply the children of one service after the other, and one status."""
    while True:
        body = await queue.get()
        snapshot = Snapshot(service=InferenceService.parse(body), now=0.0)
        for child in desire(snapshot, decide(snapshot), PodDefaults("conch/serving:test")):
            await server.apply(kind_of(child), child, FIELD_MANAGER)
        meta = {key: body["metadata"][key] for key in ("name", "namespace")}
        status = {"observedGeneration": body["metadata"]["generation"]}
        with_status = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": meta, "status": status}
        await server.apply_status(INFERENCE_SERVICE, with_status, FIELD_MANAGER)


async def main() -> None:
    """Run until ended."""
    queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    async with await Server.connect() as server, asyncio.TaskGroup() as group:
        group.create_task(watch(server, queue))
        for _ in range(WORKERS):
            group.create_task(work(server, queue))


if __name__ == "__main__":
    asyncio.run(main())
