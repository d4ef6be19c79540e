"""The agent's loop: the manifest says which models there are, each gets a task, Triton is looked at for all."""

from __future__ import annotations

import asyncio
import shutil
import time
from typing import Final

import structlog
from pydantic import ValidationError

from conch_agent import layout
from conch_agent.model import Model
from conch_agent.reasons import Failure, Reason
from conch_agent.settings import Settings
from conch_agent.threads import in_thread
from conch_agent.triton import Refused, Triton, TritonGone
from conch_agent.watch import EAGER, SETTLED, Watch
from conch_contract import AgentReport, ModelManifest, ModelSource

_FRESH: Final = 15.0  # seconds without a beat after which the event loop is stuck
_REREAD: Final = 1.0  # seconds between looks at the manifest's file


class Agent:
    """Everything that one pod's agent does but answering HTTP."""

    def __init__(self, settings: Settings, triton: Triton) -> None:
        self._settings = settings
        self._triton = triton
        self._watch = Watch(settings, triton)
        self._models: dict[str, tuple[Model, asyncio.Task[None]]] = {}
        self._manifest = b""
        self._manifest_read = 0.0
        self._failure: Failure | None = Failure(Reason.MANIFEST_MISSING, "The manifest is not read yet.")
        self._beat = time.monotonic()
        self._log = structlog.get_logger()

    @property
    def alive(self) -> bool:
        """Tell whether the loop turns."""
        return time.monotonic() - self._beat < _FRESH

    @property
    def report(self) -> AgentReport:
        """What the pod serves, and why not."""
        models = tuple(model.report for model, _ in self._models.values())
        ready = bool(models) and all(model.serving for model, _ in self._models.values())
        return AgentReport(
            ready=ready,
            models=models,
            reason=self._failure.reason if self._failure else "",
            message=self._failure.message if self._failure else "",
        )

    async def run(self) -> None:
        """Turn until cancelled; then stop the models' tasks (Triton keeps what it has)."""
        heart = asyncio.create_task(self._heart())
        try:
            while True:
                await self._follow_manifest()
                await self._watch.look()
                await asyncio.sleep(SETTLED if self.report.ready else EAGER)
        finally:
            tasks = [heart, *(task for _, task in self._models.values())]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _heart(self) -> None:
        """Show that nothing blocks the event loop."""
        while True:
            self._beat = time.monotonic()
            await asyncio.sleep(1)

    async def _follow_manifest(self) -> None:
        if time.monotonic() - self._manifest_read < _REREAD:
            return
        self._manifest_read = time.monotonic()
        file = self._settings.manifest
        try:
            content = await in_thread(file.read_bytes)
        except OSError:
            if not self._models:
                self._failure = Failure(Reason.MANIFEST_MISSING, f"There is no manifest at {file} yet.")
            return
        if content == self._manifest:
            return
        self._manifest = content
        try:
            manifest = ModelManifest.model_validate_json(content)
        except ValidationError as error:
            self._failure = Failure(Reason.INVALID_MANIFEST, f"{file} cannot be read: {error}")
            self._log.error("manifest", message=self._failure.message)
            return
        self._failure = None
        await self._apply(manifest)

    async def _apply(self, manifest: ModelManifest) -> None:
        wanted = {source.name: source for source in manifest.models}
        served = {name for name, (model, _) in self._models.items() if model.serving}
        self._log.info("manifest", models=sorted(wanted))
        for name, (model, _) in list(self._models.items()):
            source = wanted.get(name)
            if source and source.unpinned == model.source.unpinned:
                model.pin(source)
            else:
                await self._stop(name)
        await self._remove_others(wanted)
        for name, source in wanted.items():
            if name not in self._models:
                model = Model(source, self._settings, self._triton, self._watch, warm=name in served)
                self._models[name] = (model, asyncio.create_task(model.run(), name=name))

    async def _stop(self, name: str) -> None:
        _, task = self._models.pop(name)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _remove_others(self, wanted: dict[str, ModelSource]) -> None:
        """Unload and delete what is in the repository and no longer in the manifest."""
        repository, downloads = self._settings.repository, self._settings.downloads
        for folder in [path for path in repository.iterdir() if path.name not in wanted]:
            try:
                await self._triton.unload(folder.name)
            except (TritonGone, Refused) as error:
                self._log.info("not unloaded", model=folder.name, detail=str(error))
            await in_thread(layout.remove, folder, downloads / f"{folder.name}.removed")
        for folder in [path for path in downloads.iterdir() if path.name not in wanted]:
            await in_thread(shutil.rmtree, folder, ignore_errors=True)
