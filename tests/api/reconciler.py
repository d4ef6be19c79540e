"""A Reconciler in the process of the test, which writes to a real API server."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from conch.claims import Claims
from conch.contests import Contests
from conch.desire import PodDefaults
from conch.observe import SignaturePolicies, Store
from conch.queue import WorkQueue
from conch.reconcile import Reconciler
from conch.signals import Agents, Capacities, Collector, Installations, Warnings
from conch.write import EventWriter, Server, Writer, latest_warning, read_lease, try_read_capacities


def build_reconciler(
    server: Server,
    store: Store,
    *,
    defaults: PodDefaults | None = None,
    installation: str | None = None,
    handle_written: Callable[[Mapping[str, Any]], object] | None = None,
) -> Reconciler:
    """Return a Reconciler without watches; the caller closes its agents.

    Args:
        server: the connection for all calls.
        store: the cache that the test fills.
        defaults: of pods.
        installation: the name in the status; None: it writes none.
        handle_written: called with the answers to writes; None: the store takes them.
    """
    queue = WorkQueue()
    event_writer = EventWriter(server, "test")
    return Reconciler(
        store=store,
        gateways=None,
        policies=SignaturePolicies(""),
        agents=Agents(queue.add),
        collector=Collector(queue.add),
        capacities=Capacities(queue.add, partial(try_read_capacities, server)),
        warnings=Warnings(queue.add, partial(latest_warning, server)),
        claims=Claims(installation, Installations(queue.add, partial(read_lease, server)), event_writer, time.time),
        contests=Contests(),
        writer=Writer(server, handle_written or store.put),
        event_writer=event_writer,
        defaults=defaults or PodDefaults("conch/serving:1"),
        metrics_api="builtin",
        prometheus="",
        clock=time.time,
    )
