"""The state machine of a model in the manifest, from Pending to Ready and back.

`ModelContent` fetches it and lays it out, `Loader` loads it, `PodWarmup` warms it, and `build_report` reports it. This
module has their order. `LoadWaits` has what a model waits for, `run_with_retries` when a failure is tried again.
"""

from __future__ import annotations

import structlog

from conch_agent.callees import find_missing
from conch_agent.crashes import ContentLoads
from conch_agent.load_waits import LoadWaits
from conch_agent.loader import Loader
from conch_agent.metrics import ModelMetrics, Phase
from conch_agent.model_content import ModelContent
from conch_agent.model_report import ModelSnapshot, build_report
from conch_agent.model_status import ModelStatus
from conch_agent.outage_watch import OutageWatch
from conch_agent.pod import Server
from conch_agent.policy import has_passed, read_policy
from conch_agent.reasons import Failure
from conch_agent.repository_model import RepositoryModel
from conch_agent.retries import Retries, run_with_retries
from conch_agent.threads import run_in_thread
from conch_agent.triton import TritonUnavailableError
from conch_agent.warmup.pod import PodWarmup
from conch_contract import ModelReport, ModelSource, ModelState


class Model:
    """A model that is fetched, loaded, warmed and monitored until its task is cancelled."""

    def __init__(self, source: ModelSource, server: Server, *, is_warm: bool = False) -> None:
        """Create the model.

        Args:
            source: The model in the manifest.
            server: The Triton that serves it.
            is_warm: True if the pod already serves the model with the content that this source replaces.
        """
        self._server = server
        self._settings = server.settings
        self._monitor = server.monitor
        self._models = server.models
        self.metrics = ModelMetrics()
        self._loader = Loader(source.name, server, self.metrics)
        self._warmup = PodWarmup(server.settings, is_warm=is_warm or source.warmup is None)
        self._outage_watch = OutageWatch(server.settings)
        self._missing_models: tuple[str, ...] = ()  # callees that Triton lacked when this model became ready
        self._log = structlog.get_logger().bind(model=source.name)
        self._status = ModelStatus(self._log)
        self._waits = LoadWaits(source.name, server, self._status)
        self._content = ModelContent(source, server, self.metrics, self._status, self._waits)

    @property
    def source(self) -> ModelSource:
        """The model in the manifest."""
        return self._content.source

    @property
    def _model(self) -> RepositoryModel | None:
        """The model in the repository; None: there is none yet."""
        return self._content.current

    @property
    def is_serving(self) -> bool:
        """True if Triton serves all desired versions, warm and with the trace rate that the model has to have."""
        has_other_content = self._content.is_superseded or self._loader.has_lost_content
        is_set_up = self._warmup.is_warm and self._loader.has_trace_rate
        return is_set_up and self.is_loaded and not has_other_content

    @property
    def is_settled(self) -> bool:
        """True if the model does not hold its pod: it serves, or is left out."""
        return self.is_serving or self.is_left_out

    @property
    def is_left_out(self) -> bool:
        """True if the model has failed, and the pod serves the others without it; it is tried again all the same."""
        return self.may_be_missing and not self.is_serving

    @property
    def answers(self) -> bool:
        """True if Triton serves a version of the model, with whatever content."""
        return self._loader.serves(())

    @property
    def answers_as_before(self) -> bool:
        """True if Triton serves another content than that of the source, as an earlier agent left it."""
        return self.answers and (self._model is None or self._loader.has_former)

    @property
    def is_current(self) -> bool:
        """True if Triton is known to serve the content of the repository."""
        return self.is_loaded and self._loader.is_current

    @property
    def may_be_missing(self) -> bool:
        """True if the new content has failed and the pod is ready without it; that of before may serve yet."""
        return self._status.last_failure is not None

    @property
    def content(self) -> str:
        """Identifier of the content in the repository; empty: it has none yet."""
        return self._model.content if self._model else ""

    @property
    def source_identity(self) -> str:
        """Identity of the listing of the store that has its files; empty: it has none yet, or those of the cache."""
        return self._model.source_identity if self._model else ""

    @property
    def state(self) -> ModelState:
        """The state before the next read of Triton's index."""
        return self._status.state

    @property
    def is_laid_out(self) -> bool:
        """True if its files are in the repository. A pipeline has none: it is rendered once its steps serve."""
        return self._content.is_laid_out

    @property
    def is_loaded(self) -> bool:
        """True if the desired versions are READY in Triton, also with the content of before a reload."""
        return self._loader.serves(self._model.versions if self._model else ())

    async def has_current_content(self) -> bool:
        """Return True if all versions in Triton have the content of the repository.

        Raises:
            TritonUnavailableError: Triton does not answer.
        """
        model = await self._content.find()
        return model is not None and await self._loader.has_content(model)

    @property
    def uses_response_cache(self) -> bool | None:
        """True if the model's configuration has Triton cache its answers; None: it is not read yet."""
        return self._model.response_cache if self._model else None

    @property
    def callees(self) -> tuple[str, ...]:
        """The models that this one calls, once its configuration is read; those of a pipeline are known before."""
        return self._content.callees

    @property
    def makes_calls(self) -> bool:
        """True if it may call models whose names its program does not show, once that is read."""
        return self._model is not None and self._model.makes_calls

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps of an ensemble, once its configuration is read; those of a pipeline are known before."""
        return self._content.steps

    @property
    def _loads(self) -> ContentLoads:
        """The loads of the content in the repository."""
        return self._monitor.crashes.bind(self.source.name, self.content)

    def pin(self, source: ModelSource, identity: str = "") -> None:
        """Set digests and object versions of the revision's first pod, or the files of a repository's listing.

        Args:
            source: The source, whose other fields are unchanged.
            identity: Identity of the model's files in the listing of its repository; empty: any files are accepted.
        """
        self._content.pin(source, identity)

    @property
    def report(self) -> ModelReport:
        """The current state of the model."""
        return build_report(self.take_snapshot())

    def take_snapshot(self) -> ModelSnapshot:
        """Return what is reported of the model now."""
        loader, warmup, progress = self._loader, self._warmup, self.metrics.progress
        return ModelSnapshot(
            source=self.source,
            state=self._status.state,
            failure=self._status.failure,
            left_out=self._status.last_failure if self.is_left_out else None,
            crash=self._loads.failure,
            suspicion=self._loads.suspicion,
            outage=self._monitor.failure if self._monitor.index is None else None,
            versions=loader.versions,
            model=self._model,
            bytes_fetched=progress.fetched,
            bytes_total=progress.total,
            fetch_seconds=self._status.compute_fetch_seconds(self._model.seconds if self._model else 0.0),
            load_seconds=loader.load_seconds,
            # One of the manifest has a report of its own.
            missing=tuple(name for name in self._missing_models if name not in self._models),
            names=tuple(self._models),
            reports_unused_cache=self._reports_unused_cache(),
            unknown_trace_rates=self._list_unknown_trace_rates(),
            has_unloaded=loader.has_unloaded,
            warmup=warmup.report,
            warmup_digest=warmup.digest,
            changed_warmup=warmup.find_changed_config_map(self.source),
            config=loader.config or (),
            source_warning=self._outage_watch.warning,
        )

    @property
    def _is_first(self) -> bool:
        """True for the model that reports what concerns all models of the pod."""
        return next(iter(self._models.values()), None) is self

    def _reports_unused_cache(self) -> bool:
        """Return True for the first model of a pod whose response cache no model uses."""
        return self._is_first and all(model.uses_response_cache is False for model in self._models.values())

    def _list_unknown_trace_rates(self) -> tuple[str, ...]:
        """Return, for the first model of a pod, the names with a trace rate that no model has."""
        return tuple(self._server.settings.trace_rates.keys() - self._models.keys()) if self._is_first else ()

    async def run(self) -> None:
        """Fetch, lay out, load and monitor the model until cancelled."""
        try:
            await run_with_retries(self._attempt, self._set_failed, self._wait_until_due, self._log)
        finally:
            await self._outage_watch.close()

    async def _attempt(self, retries: Retries) -> None:
        """Prepare the model and serve it, until the revision has other content or other checks.

        Args:
            retries: The delays of retries, which begin anew after a success.

        Raises:
            Failure: The model cannot be prepared, loaded or warmed.
        """
        model = await self._content.prepare()
        if not self.source.steps:
            self._outage_watch.follow(self.source, model)
        retries.record_prepared()
        await self._serve(model, retries)

    async def _wait_until_due(self) -> None:
        """Wait until a model that ends Triton may be loaded again, or has other content to fetch."""
        while not self._content.is_superseded and not self._loads.is_due(self._models, self._loader.index):
            await self._monitor.wait_for_update()

    async def _serve(self, model: RepositoryModel, retries: Retries) -> None:
        """Load and warm the model when Triton lacks it. Return when the revision has other content, or other checks.

        Args:
            model: The model in the repository.
            retries: As in `_attempt`.

        Raises:
            Failure: The model cannot be loaded or warmed.
        """
        if self._status.state != ModelState.READY:
            self._status.state = ModelState.LOADING
        self._loader.begin()
        is_warm = False
        while True:
            states = {version.state for version in self._loader.versions}
            if self._content.is_superseded:
                return
            self._loads.raise_failure(self._models, self._loader.index)
            if self._monitor.index is None:
                self._loader.note_outage()
            elif await self._loader.verify(model):
                self._loads.record_served()
                await self._loader.set_trace_rate()
                if is_warm := is_warm or await self._warm_up(model):
                    await self._read_config()  # before: a pod that is reported ready is not polled again
                    self._set_ready()
                    retries.record_served()
            else:
                is_warm = False
                # A Triton that has restarted is not warm.
                self._warmup.is_warm = (self._warmup.is_warm and self.is_loaded) or self.source.warmup is None
                self._status.state = ModelState.LOADING
                self._loader.raise_for_lost_load(model, states)
                if not self._waits.must_wait(required=self.source.required):
                    if not has_passed(model.policy, await run_in_thread(read_policy, self._settings)):
                        return  # to be verified first, such as before Triton's restart loads it again
                    await self._loader.load_if_due(model, states)
            await self._monitor.wait_for_update()

    async def _warm_up(self, model: RepositoryModel) -> bool:
        """Warm the model after a load; return False if Triton became unavailable."""
        if self.source.warmup is None:
            return True
        self._status.state = ModelState.WARMING
        self._log.info("warming up")
        try:
            with self.metrics.time(Phase.WARM):
                report = await self._warmup.run(self.source, self.source.warmup, model.versions)
        except TritonUnavailableError as error:
            self._log.warning("the warm-up lost Triton", detail=str(error))
            return False
        if failure := self._warmup.build_failure(self.source):
            raise failure
        self._log.info("warmed up", **report.model_dump(exclude_defaults=True))
        return True

    def _set_ready(self) -> None:
        self._missing_models = find_missing(self.callees, self._loader.index)
        self._status.set_ready(self._loader.load_seconds)

    async def _read_config(self) -> None:
        """Read the configuration that Triton uses, once after a load; without an answer the report has none."""
        if self._model:
            await self._loader.read_config(self._model)

    def _set_failed(self, failure: Failure) -> None:
        self._loads.abandon()  # one whose answer was lost holds no other
        self._status.set_failed(failure, required=self.source.required)
