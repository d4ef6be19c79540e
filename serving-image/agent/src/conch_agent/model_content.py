"""The content of one model in Triton's repository: how it gets there, and whether it is what has to be there."""

from __future__ import annotations

import structlog

from conch_agent.load_waits import LoadWaits
from conch_agent.metrics import ModelMetrics
from conch_agent.model_status import ModelStatus
from conch_agent.pipeline_folder import find_pipeline, lay_out_pipeline
from conch_agent.pod import Server
from conch_agent.prepare import Preparation
from conch_agent.repository_model import RepositoryModel
from conch_agent.threads import run_in_thread
from conch_contract import ModelSource


class ModelContent:
    """The content of a model.

    Attributes:
        source: The model in the manifest.
        current: The model in the repository; None: there is none yet.
    """

    def __init__(
        self, source: ModelSource, server: Server, metrics: ModelMetrics, status: ModelStatus, waits: LoadWaits
    ) -> None:
        """Create the content of a model that is not in the repository yet.

        Args:
            source: The model in the manifest.
            server: The Triton that serves it.
            metrics: The durations of its steps.
            status: The model's status, which has the begin of a fetch.
            waits: What the layout waits for.
        """
        self.source = source
        self.current: RepositoryModel | None = None
        self._server = server
        self._metrics = metrics
        self._status = status
        self._waits = waits
        self._identity = ""  # of the files in the listing of the model's repository; empty: any are accepted
        self._preparation: Preparation | None = None
        self._log = structlog.get_logger().bind(model=source.name)

    def pin(self, source: ModelSource, identity: str) -> None:
        """Set digests and object versions of the revision's first pod, or the files of a repository's listing.

        Args:
            source: The source, whose other fields are unchanged.
            identity: Identity of the model's files in the listing of its repository; empty: any files are accepted.
        """
        self.source = source
        self._identity = identity
        if self._preparation:
            self._preparation.pin(source, identity)

    @property
    def is_superseded(self) -> bool:
        """True if the files in the repository are not those of the revision, or of the listing; a pipeline has none."""
        if self.current is None or self.source.steps:
            return False
        has_other_files = bool(self._identity) and self.current.identity != self._identity
        return has_other_files or bool(self.source.digest and self.current.digest != self.source.digest)

    @property
    def is_laid_out(self) -> bool:
        """True if its files are in the repository. A pipeline has none: it is rendered once its steps serve."""
        return bool(self.source.steps) or (self.current is not None and not self.is_superseded)

    @property
    def callees(self) -> tuple[str, ...]:
        """The models that this one calls, once its configuration is read; those of a pipeline are known before."""
        return self.current.callees if self.current else self._steps_of_pipeline

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps of an ensemble, once its configuration is read; those of a pipeline are known before."""
        return self.current.steps if self.current else self._steps_of_pipeline

    @property
    def _steps_of_pipeline(self) -> tuple[str, ...]:
        return tuple(step.model for step in self.source.steps)

    async def find(self) -> RepositoryModel | None:
        """Return the model in the repository, also one that an earlier agent has rendered of a pipeline."""
        return self.current or await run_in_thread(find_pipeline, self.source, self._server.settings)

    async def prepare(self) -> RepositoryModel:
        """Have the content in the repository, and return it.

        Raises:
            Failure: As `Preparation.prepare`, or as `LoadWaits.wait_for_steps`.
        """
        if self.source.steps:
            self.current = await self._render_pipeline()
        else:
            async with self._server.slots:
                self.current = await self._fetch()
        return self.current

    async def _render_pipeline(self) -> RepositoryModel:
        """Render the ensemble of a pipeline, each time that it is loaded anew: its steps may have changed."""
        configs = await self._waits.wait_for_steps(self.source)
        await self._waits.wait_for_load()
        return await run_in_thread(lay_out_pipeline, self.source, configs, self._server.settings)

    async def _fetch(self) -> RepositoryModel:
        """Prepare the model folder in the repository. A retry after a failed load reads the source first."""
        if self._preparation is None:
            self._preparation = Preparation(self.source, self._server.settings, self._metrics, self._server.peers)
            self._preparation.pin(self.source, self._identity)
            if existing := await run_in_thread(self._preparation.find_existing):
                self._log.info("laid out already", digest=existing.digest)
                return existing
        current = self.current
        model = await self._preparation.prepare(current, self._status.set_fetching, self._waits.wait_for_load)
        if model is not current:
            self._log.info("laid out", digest=model.digest, bytes=model.size, seconds=model.seconds)
        return model
