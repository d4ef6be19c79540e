"""The agent's loop: it reads the manifest, runs a task for each model, and refreshes the monitor of Triton."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Final

import structlog
from pydantic import ValidationError

from conch_agent import folders
from conch_agent.callees import find_needed
from conch_agent.effective_config import limit_config
from conch_agent.exchange import Exchange, collect_callees
from conch_agent.expansion import Expansion, Part
from conch_agent.metrics import PodTimes, render_metrics
from conch_agent.model import Model
from conch_agent.monitor import STARTUP_INTERVAL, TritonMonitor
from conch_agent.peers import Peers
from conch_agent.pod import Server
from conch_agent.reasons import Failure, Reason
from conch_agent.settings import Settings
from conch_agent.source_watch import SourceWatches
from conch_agent.threads import run_in_thread
from conch_agent.triton import Triton, TritonError, TritonUnavailableError
from conch_contract import AgentReport, ModelManifest, ModelSource

_HEARTBEAT_TIMEOUT: Final = 15.0  # seconds without a heartbeat after which the event loop is stuck
_MANIFEST_INTERVAL: Final = 1.0  # seconds between two reads of the manifest's file
# Seconds after which a pod that is not ready gets no requests: its probe runs each second, then proxies have to follow.
_LEAVE_SECONDS: Final = 5.0
# Seconds for which the manifest of a revision may follow its assignment: the kubelet reads them from two objects.
_FOLLOW_SECONDS: Final = 60.0


class Agent:
    """The agent of a pod, without its HTTP endpoints."""

    def __init__(self, settings: Settings, triton: Triton) -> None:
        self._settings = settings
        self._triton = triton
        self._monitor = TritonMonitor(settings, triton)
        self._models: dict[str, Model] = {}
        self.peers = self._create_peers()
        self._server = Server(settings, triton, self._monitor, self._wait_until_left, self._models, self.peers)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._watches = SourceWatches(settings)
        self._exchange_task: asyncio.Task[None] | None = None
        self._expansion: Expansion | None = None  # None: no manifest is read yet, and what serves is left as it is
        self._expansion_task: asyncio.Task[None] | None = None
        self._parts: tuple[Part, ...] | None = None  # those of the expansion that are applied
        self._content = b""  # of the manifest's file
        self._manifest = ModelManifest(models=())
        self._assigned = ""  # the revision that is assigned to the pod; empty: that of all pods
        self._announced, self._announce_time = "", 0.0  # the assignment as it was last read, and since when it is so
        self._applied_revision = ""  # of the models that are applied
        self._loaded_revision = ""  # the last one of which all models were loaded
        self._has_been_ready = False  # while Triton runs
        self._left_time = time.monotonic()  # since when the pod has to serve another one
        self._manifest_time = 0.0
        self._failure: Failure | None = Failure(Reason.MANIFEST_MISSING, "The manifest is not read yet.")
        self._heartbeat = time.monotonic()
        self._times = PodTimes()
        self._log = structlog.get_logger()

    def _create_peers(self) -> Peers | None:
        """Return the other pods of the service; None: this one sends them nothing, and fetches from the source."""
        if not self._settings.peers:
            return None
        return Peers(self._settings, lambda: (model.source for model in self._models.values()))

    @property
    def is_running(self) -> bool:
        """True if the event loop is not stuck."""
        return time.monotonic() - self._heartbeat < _HEARTBEAT_TIMEOUT

    @property
    def metrics(self) -> str:
        """The page of metrics."""
        return render_metrics({name: model.metrics for name, model in self._models.items()}, self._times)

    @property
    def report(self) -> AgentReport:
        """The report of the pod."""
        listed = {source.name for source in self._manifest.models}  # of a repository its entry
        models = limit_config((model.report for model in self._models.values()), listed)
        pending = self._expansion.pending if self._expansion and self._parts is None else ()
        is_due = self._serves_its_revision or self._manifest.in_place
        is_settled = is_due and all(each.is_settled for each in self._models.values())
        return AgentReport(
            ready=bool(models) and (is_settled or self._serves_in_place),
            models=(*models, *(entry for entry in pending if entry.name not in self._models)),
            reason=self._failure.reason if self._failure else "",
            message=self._failure.message if self._failure else "",
            revision=self._applied_revision,
            sources=self._watches.report({name: each.source_identity for name, each in self._models.items()}),
        )

    @property
    def _serves_in_place(self) -> bool:
        """True if the pod gets requests while its model changes, and Triton answers them, with whatever content."""
        in_place = self._manifest.in_place and self._monitor.index is not None
        models = self._models.values()
        return in_place and all(each.answers_as_before or (self._has_been_ready and each.answers) for each in models)

    @property
    def _serves_its_revision(self) -> bool:
        """True if the models of the revision that the pod has to serve were loaded, and not only those of another."""
        revision = self._manifest.revision
        return not revision or (self._assigned in {"", revision} and self._loaded_revision == revision)

    async def _wait_until_left(self) -> bool:
        """Wait until the pod gets no requests, since it has to serve another revision; return False if it gets some."""
        while not self._serves_its_revision and not self._manifest.in_place:
            if time.monotonic() - self._left_time >= _LEAVE_SECONDS:
                return True
            await asyncio.sleep(1)
        return False

    def _note_report(self, report: AgentReport) -> None:
        """Note whether the models of the revision were loaded, and whether the pod was ready."""
        exchange = self._server.exchange
        if (exchange is None or exchange.is_over) and report.has_loaded:
            self._loaded_revision = self._applied_revision
        # A Triton that has started again is not warm.
        self._has_been_ready = report.ready or (self._has_been_ready and self._monitor.has_answered)

    async def _note_times(self, report: AgentReport) -> None:
        """Note when the pod was first ready, and when Triton then answered a request."""
        if report.ready:
            self._times.note_ready()
        if report.ready and self._times.is_count_due:
            with suppress(TritonError, TritonUnavailableError):  # the next read of the index has the reason
                self._times.note_requests(sum((await self._triton.count_requests()).values()))

    async def run(self) -> None:
        """Run until cancelled, then stop the models' tasks. Triton keeps its models."""
        heartbeats = asyncio.create_task(self._record_heartbeats())
        try:
            await run_in_thread(folders.empty_trash, self._settings.downloads)
            while True:
                await self._read_manifest()
                await self._follow_expansion()
                self._monitor.crashes.requests.needed = find_needed(self._manifest.entry_source, self._models)
                await self._monitor.refresh()
                report = self.report  # of many models it takes some milliseconds
                self._note_report(report)
                await self._note_times(report)
                await asyncio.sleep(self._monitor.ready_interval if report.ready else STARTUP_INTERVAL)
        finally:
            others = [task for task in (self._expansion_task, self._exchange_task) if task]
            tasks = [heartbeats, *others, *self._tasks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._watches.close()

    async def _record_heartbeats(self) -> None:
        """Record that nothing blocks the event loop."""
        while True:
            self._heartbeat = time.monotonic()
            await asyncio.sleep(1)

    async def _read_manifest(self) -> None:
        """Read the manifest; if it has changed, start to list its repositories, after which it is applied."""
        if time.monotonic() - self._manifest_time < _MANIFEST_INTERVAL:
            return
        self._manifest_time = time.monotonic()
        if self._serves_its_revision:
            self._left_time = self._manifest_time
        assigned = await run_in_thread(self._settings.read_revision)
        file = await run_in_thread(self._settings.find_manifest, assigned)
        try:
            content = await run_in_thread(file.read_bytes)
        except OSError:
            if not self._models:
                self._failure = Failure(Reason.MANIFEST_MISSING, f"There is no manifest at {file} yet.")
            return
        if content == self._content:
            self._note_assignment(assigned)
            return
        self._content = content
        try:
            manifest = ModelManifest.model_validate_json(content)
        except ValidationError as error:
            self._failure = Failure(Reason.INVALID_MANIFEST, f"{file} cannot be read: {error}")
            self._log.error("manifest", message=self._failure.message)
            return
        self._failure = None
        if self._expansion_task:
            self._expansion_task.cancel()
        self._parts, self._manifest = None, manifest
        self._watches.follow(manifest.watched)
        self._note_assignment(assigned)
        self._expansion = Expansion(manifest, self._settings)
        self._expansion_task = asyncio.create_task(self._expansion.run())

    def _note_assignment(self, revision: str) -> None:
        """Note the revision that is assigned to the pod, once its manifest is there or does not follow."""
        if revision != self._announced:
            self._announced, self._announce_time = revision, time.monotonic()
        waits = bool(self._models) and time.monotonic() - self._announce_time < _FOLLOW_SECONDS
        if revision in {"", self._manifest.revision} or not waits:
            self._assigned = revision

    async def _follow_expansion(self) -> None:
        """Apply the models of the manifest when they are known, and each time that their listing has changed."""
        expansion = self._expansion
        if expansion is None:
            return
        if self._parts and not expansion.is_settled and self.report.ready:
            await expansion.settle(self._parts)
        if expansion.parts is not None and expansion.parts is not self._parts:
            has_changed, self._parts = expansion.parts != self._parts, expansion.parts
            if has_changed:
                await self._apply(self._parts)
            if self._applied_revision != self._manifest.revision:
                self._applied_revision, self._loaded_revision = self._manifest.revision, ""

    async def _apply(self, parts: Sequence[Part]) -> None:
        sources = {part.source.name: part.source for part in parts}
        identities = {part.source.name: part.identity for part in parts}
        serving_names = {name for name, model in self._models.items() if model.is_serving}
        self._log.info("manifest", models=sorted(sources))
        if self._exchange_task:
            self._exchange_task.cancel()
            await asyncio.gather(self._exchange_task, return_exceptions=True)
        exchange = self._server.exchange
        before = exchange.list_callees() if exchange and not exchange.is_over else collect_callees(self._models)
        kept: set[str] = set()
        for name, model in list(self._models.items()):
            source = sources.get(name)
            if source and source.without_pins() == model.source.without_pins():
                model.pin(source, identities[name])
                kept.add(name)
                continue
            if not source:
                del self._models[name]
            task = self._tasks.pop(name)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._monitor.crashes.abandon_load(name)
        self._server.exchange = await self._begin_exchange(sources, before)
        for name, source in sources.items():
            if name not in kept:  # a model with other content is reported, and serves, until the new one is here
                model = self._models[name] = Model(source, self._server, is_warm=name in serving_names)
                model.pin(source, identities[name])
                self._tasks[name] = asyncio.create_task(model.run(), name=name)

    async def _begin_exchange(
        self, sources: Mapping[str, ModelSource], before: Mapping[str, Collection[str]]
    ) -> Exchange | None:
        """Begin the exchange of what Triton has for the models of a manifest; None: they are exchanged one by one."""
        served = {path.name for path in self._settings.repository.iterdir()}
        if not self._manifest.revision or len(served | sources.keys()) == 1:
            await self._remove_others(sources)
            return None
        exchange = Exchange(self._models, self._triton, self._monitor, self._wait_until_left, before)

        async def run() -> None:
            await exchange.run()
            await self._remove_others(sources)

        self._exchange_task = asyncio.create_task(run())
        return exchange

    async def _remove_others(self, sources: Mapping[str, ModelSource]) -> None:
        """Unload and delete models in the repository that the manifest does not have. What cannot be deleted stays."""
        repository, downloads = self._settings.repository, self._settings.downloads
        for folder in [path for path in repository.iterdir() if path.name not in sources]:
            await self._triton.wait_for_load(folder.name)
            try:
                await self._triton.unload(folder.name)
            except (TritonUnavailableError, TritonError) as error:
                self._log.info("not unloaded", model=folder.name, detail=str(error))
            try:
                await run_in_thread(folders.remove_folder, folder, folders.find_trash(downloads, folder.name))
            except OSError as error:  # such as of a disk that has become read-only: the other models are served
                self._log.warning("not removed", model=folder.name, detail=str(error))
        encrypted = {name for name, source in sources.items() if source.decrypt}
        trash = (path for name in sources for path in folders.list_trash(downloads, name))  # a model is laid out now
        used = {*sources, *(path.name for path in trash)}
        unused = [path for path in downloads.iterdir() if path.name not in used]
        unused += [path for path in self._settings.decrypted.iterdir() if path.name not in encrypted]
        for folder in unused:
            await run_in_thread(folders.delete_tree, folder)
