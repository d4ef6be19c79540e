"""A claim whose file system is slow, or does not answer for a while: the agent goes on answering meanwhile."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from conch_agent.cache import keep_lease
from conch_agent.prepare import Preparation
from conch_agent.settings import Settings
from conch_contract import ModelSource
from tests.support.namespaces import run_apart
from tests.unit.test_agent_full_disk import URI, Place

_SECONDS = 0.02  # for each use of a file


class SlowFiles:
    """Makes each use of a file in a folder take a while, from now on in this process.

    Python's audit events have the uses (https://docs.python.org/3/library/audit_events.html).

    Attributes:
        count: The uses.
        in_loop: Those that the thread of the event loop has made, which it should not.
    """

    def __init__(self, folder: Path) -> None:
        self.count = 0
        self.in_loop: list[str] = []
        self._folder = str(folder)
        sys.addaudithook(self._wait)

    def _wait(self, event: str, arguments: tuple[object, ...]) -> None:
        if not event.startswith(("open", "os.", "shutil.")):
            return
        if not any(_decode(argument).startswith(self._folder) for argument in arguments):
            return
        self.count += 1
        if threading.current_thread() is threading.main_thread():
            self.in_loop.append(f"{event} {arguments[0]!r}")
        else:
            time.sleep(_SECONDS)


def _decode(argument: object) -> str:
    return argument.decode(errors="replace") if isinstance(argument, bytes) else str(argument)


def test_a_claim_that_is_slow_holds_up_no_event_loop(tmp_path: Path) -> None:
    """Two pods fetch a model, of which one waits for the other; both have the cache, and keep their leases."""

    def story() -> None:
        place = Place(tmp_path / "place", tmp_path / "place" / "claim")

        async def serve(settings: Settings) -> None:
            lease = asyncio.create_task(keep_lease(settings))
            model = ModelSource(name="m", format="triton", storage_uri=URI)
            assert (await Preparation(model, settings).prepare(None)).cache_problem == ""
            assert not lease.done()
            lease.cancel()

        async def serve_both(pods: Sequence[Settings]) -> None:
            await asyncio.gather(*map(serve, pods))

        def run() -> None:
            pods = [place.make_settings(name) for name in "ab"]
            files = SlowFiles(place.root)
            asyncio.run(serve_both(pods))
            assert files.in_loop == []
            assert files.count > 100
            for settings in pods:
                place.check_served(settings)

        place.serve(run)

    run_apart(story)
