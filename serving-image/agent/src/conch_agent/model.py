"""The state machine of a model in the manifest, from Pending to Ready and back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import structlog
from tritonclient.grpc.model_config_pb2 import ModelConfig

from conch_agent.backoff import Backoff
from conch_agent.callees import describe_missing, find_awaited, find_missing
from conch_agent.effective_config import build_config_values
from conch_agent.exchange import Exchange, find_busy
from conch_agent.model_warnings import (
    NO_CACHE,
    UNUSED_CACHE,
    build_memory_warning,
    build_warnings,
    describe_changed_warmup,
    describe_overrides,
)
from conch_agent.monitor import TritonMonitor
from conch_agent.prepare import Preparation, RepositoryModel, find_pipeline, lay_out_pipeline
from conch_agent.reasons import Failure, Reason, WarningReason
from conch_agent.settings import Settings
from conch_agent.threads import run_in_thread
from conch_agent.triton import RepositoryIndex, Triton, TritonError, TritonUnavailableError, Version
from conch_agent.warmup.pod import warm_up_pod
from conch_agent.warmup.requests import digest_config_map
from conch_contract import (
    ConfigValue,
    ModelReport,
    ModelSource,
    ModelState,
    ModelWarning,
    VersionReport,
    WarmupReport,
)
from conch_contract.remedies import explain, is_out_of_memory
from conch_contract.sentences import join_words

_LONGEST: Final = 2000  # characters of Triton's messages
_MAX_FETCHES: Final = 4  # models that are fetched at a time
_VERIFY_SECONDS: Final = 10.0  # between two reads of the content that Triton serves
_STATES: Final = {"READY": ModelState.READY, "LOADING": ModelState.LOADING, "UNAVAILABLE": ModelState.FAILED}

_WAITING: Final = frozenset({Reason.WAITS_FOR_MODELS, Reason.WAITS_FOR_CLIENTS, Reason.UNLOAD_FAILED})

# Failures with longer delays before a retry, because each retry is a load, or requests, to Triton.
_COSTLY: Final = frozenset(
    {
        Reason.LOAD_FAILED,
        Reason.MODEL_MISSING,
        Reason.MODEL_CYCLE,
        Reason.WARMUP_FAILED,
        Reason.WARMUP_WRONG,
        Reason.WARMUP_MISSING,
        Reason.WARMUP_TIMED_OUT,
        Reason.WARMUP_UNREACHABLE,
    }
)


@dataclass
class Server:
    """What the models of a pod have in common.

    Attributes:
        settings: The agent's settings.
        triton: The client of Triton.
        monitor: The monitor of Triton.
        wait_until_left: Waits until the pod gets no requests; returns False if it has to serve what it serves.
        models: All models of the manifest by name.
        slots: Limits the number of models that are fetched at a time.
        exchange: The exchange of the models that Triton has for those of the manifest; None: it needs none.
    """

    settings: Settings
    triton: Triton
    monitor: TritonMonitor
    wait_until_left: Callable[[], Awaitable[bool]]
    models: dict[str, Model] = field(default_factory=dict)
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_MAX_FETCHES))
    exchange: Exchange | None = None


class Model:
    """A model that is fetched, loaded, warmed and monitored until its task is cancelled."""

    def __init__(self, source: ModelSource, server: Server, *, is_warm: bool = False) -> None:
        """Create the model.

        Args:
            source: The model in the manifest.
            server: The Triton that serves it.
            is_warm: True if the pod already serves the model with the content that this source replaces.
        """
        self.source = source
        self._server = server
        self._settings = server.settings
        self._triton = server.triton
        self._monitor = server.monitor
        self._wait_until_left = server.wait_until_left
        self._models = server.models
        self._slots = server.slots
        self._state = ModelState.PENDING
        self._failure: Failure | None = None
        self._last_failure: Failure | None = None  # of a model that is not required, until it serves
        self._identity = ""  # of the files in the listing of the model's repository; empty: any are accepted
        self._model: RepositoryModel | None = None
        self._preparation: Preparation | None = None
        self._load_seconds = 0.0
        self._is_current = False  # Triton serves the content of the repository
        self._verify_time = 0.0  # when that is read again
        self._has_lost_content = False  # Triton has finished another load since: that of a manifest of before
        self._has_unloaded = False  # whether the content of before was unloaded first
        self._missing_models: tuple[str, ...] = ()  # callees that Triton lacked when this model became ready
        self._is_warm = is_warm or source.warmup is None
        self._warmup: WarmupReport | None = None
        self._warmup_digest = ""  # of the requests in the ConfigMap of the last warm-up
        self._config: tuple[ConfigValue, ...] | None = None  # that Triton uses; None: not read since the load
        self._fetch_began = 0.0
        self._log = structlog.get_logger().bind(model=source.name)

    @property
    def is_serving(self) -> bool:
        """True if Triton serves all desired versions, and they are warm where the manifest has a warm-up."""
        return self._is_warm and self.is_loaded and not (self._has_other_content or self._has_lost_content)

    @property
    def is_settled(self) -> bool:
        """True if the model does not hold its pod: it serves, or it is not required and has failed."""
        return self.is_serving or self.is_left_out

    @property
    def is_left_out(self) -> bool:
        """True if the model is not required and has failed; it is tried again all the same."""
        return self.may_be_missing and not self.is_serving

    @property
    def is_current(self) -> bool:
        """True if Triton is known to serve the content of the repository."""
        return self.is_loaded and self._is_current

    @property
    def may_be_missing(self) -> bool:
        """True if the model is not required and its new content has failed; that of before may serve yet."""
        return self._last_failure is not None

    @property
    def _has_other_content(self) -> bool:
        """True if the files in the repository are not those of the revision, or of the listing; a pipeline has none."""
        if self._model is None or self.source.steps:
            return False
        has_other_files = bool(self._identity) and self._model.identity != self._identity
        return has_other_files or bool(self.source.digest and self._model.digest != self.source.digest)

    @property
    def content(self) -> str:
        """Identifier of the content in the repository; empty: it has none yet."""
        return self._model.content if self._model else ""

    @property
    def state(self) -> ModelState:
        """The state before the next read of Triton's index."""
        return self._state

    @property
    def is_laid_out(self) -> bool:
        """True if its files are in the repository. A pipeline has none: it is rendered once its steps serve."""
        return bool(self.source.steps) or (self._model is not None and not self._has_other_content)

    @property
    def _changed_warmup(self) -> str:
        """Name of the ConfigMap of warm-up requests, if the revision's first pod had other requests; else empty."""
        digest = self.source.warmup_digest
        has_changed = bool(self.source.warmup and digest and self._warmup_digest and self._warmup_digest != digest)
        return self.source.warmup.config_map if self.source.warmup and has_changed else ""

    def pin(self, source: ModelSource, identity: str = "") -> None:
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
    def is_loaded(self) -> bool:
        """True if the desired versions are READY in Triton, also with the content of before a reload."""
        desired = self._model.versions if self._model else ()
        ready = {version.version for version in self._read_versions() if version.state == "READY"}
        return bool(ready) and (ready >= set(desired) if desired else True)

    @property
    def report(self) -> ModelReport:
        """The current state of the model."""
        model = self._model
        progress = self._preparation.progress if self._preparation else None
        state, failure = self._state, self._failure
        if self.is_left_out:
            state, failure = ModelState.FAILED, self._last_failure
        if self._monitor.index is None and state not in {ModelState.FETCHING, ModelState.PENDING}:
            failure = self._monitor.failure if model else failure
            state = ModelState.FAILED if failure and failure.reason == Reason.CONTROL_OPEN else state
            state = ModelState.LOADING if state == ModelState.READY else state
        if crash := self._monitor.crashes.find_failure(self.source.name, self.content):
            state, failure = ModelState.FAILED, crash  # also while Triton starts again, or loads it once more
        return ModelReport(
            name=self.source.name,
            state=state,
            reason=failure.reason if failure else "",
            message=failure.message if failure else "",
            versions=tuple(
                VersionReport(
                    version=version.version,
                    state=_STATES.get(version.state, ModelState.PENDING),
                    reason=version.reason[:_LONGEST],
                )
                for version in self._read_versions()
                if version.state and version.version
            ),
            digest=model.digest if model else "",
            object_versions=model.object_versions if model and not self.source.object_versions else {},
            bytes_fetched=progress.fetched if progress else 0,
            bytes_total=progress.total if progress else 0,
            fetch_seconds=self._compute_fetch_seconds(),
            load_seconds=round(self._load_seconds, 3),
            warnings=self._build_warnings(),
            warmup=self._warmup,
            warmup_digest=self._warmup_digest,
            config=self._config or (),
        )

    def _build_warnings(self) -> tuple[ModelWarning, ...]:
        if self.is_left_out and self._last_failure:
            message = f"Model {self.source.name}, which is not required, is not served: {self._last_failure.message}"
            return (ModelWarning(reason=WarningReason.MODEL_NOT_SERVED, message=message[:_LONGEST]),)
        if self._model is None:
            return ()
        # One of the manifest has a report of its own.
        absent = tuple(name for name in self._missing_models if name not in self._models)
        missing = describe_missing(self.source.name, absent, self._models)
        cache = self._describe_response_cache()
        warnings = build_warnings(self.source.name, self._model, missing, self._changed_warmup, cache)
        return (*warnings, build_memory_warning(self.source.name)) if self._has_unloaded else warnings

    def _describe_response_cache(self) -> str:
        """Return the message about a response cache of which only half is configured; empty: there is none."""
        if self.uses_response_cache:
            return "" if self.source.has_response_cache else NO_CACHE
        is_first = next(iter(self._models.values()), None) is self  # one model reports a cache that none uses
        is_unused = is_first and all(model.uses_response_cache is False for model in self._models.values())
        return UNUSED_CACHE if self.source.has_response_cache and is_unused else ""

    async def run(self) -> None:
        """Fetch, lay out, load and monitor the model until cancelled."""
        backoff, costly_backoff = Backoff(first=1, longest=60), Backoff(first=10, longest=60)
        while True:
            try:
                if self.source.steps:
                    await self._prepare_pipeline()
                else:
                    async with self._slots:
                        await self._prepare()
                backoff.reset()
                await self._serve(costly_backoff)
                continue
            except Failure as failure:
                self._set_failure(failure)
                delay = self._monitor.crashes.compute_delay(self.source.name, self.content)
                if failure.reason != Reason.LOAD_CRASHED:
                    delay = (costly_backoff if failure.reason in _COSTLY else backoff).draw_delay()
            except Exception as error:  # noqa: BLE001  an unexpected failure of one model must not end the others
                self._log.exception("unexpected")
                self._set_failure(Failure(Reason.INTERNAL, f"{type(error).__name__}: {error}"))
                delay = backoff.draw_delay()
            await asyncio.sleep(delay)

    async def _prepare_pipeline(self) -> None:
        """Render the ensemble of a pipeline, each time that it is loaded anew: its steps may have changed."""
        configs = await self._read_step_configs()
        self._model = await run_in_thread(lay_out_pipeline, self.source, configs, self._settings)

    async def _read_step_configs(self) -> dict[str, ModelConfig]:
        """Return the configurations of the steps of a pipeline, once Triton serves them."""
        while True:
            if self._waits():
                self._state = ModelState.LOADING
            else:
                with suppress(TritonError, TritonUnavailableError):  # Triton has just ended, or a step has
                    return {step.model: await self._triton.read_config(step.model) for step in self.source.steps}
            await self._monitor.wait_for_update()

    async def _prepare(self) -> None:
        """Prepare the model folder in the repository. A retry after a failed load reads the source first."""
        if self._preparation is None:
            self._preparation = Preparation(self.source, self._settings)
            self._preparation.pin(self.source, self._identity)
            self._model = await run_in_thread(self._preparation.find_existing)
            if self._model:
                self._log.info("laid out already", digest=self._model.digest)
                return
        current = self._model
        model = await self._preparation.prepare(current, self._start_fetch)
        if model is not current:
            self._log.info("laid out", digest=model.digest, bytes=model.size, seconds=model.seconds)
        self._model = model

    def _start_fetch(self) -> None:
        self._state, self._failure = ModelState.FETCHING, None  # the store has answered: its last failure is over
        self._fetch_began = time.monotonic()

    async def _serve(self, backoff: Backoff) -> None:
        """Load and warm the model when Triton lacks it. Return when the revision has other content.

        Raises:
            Failure: The model cannot be loaded or warmed.
        """
        if self._state != ModelState.READY:
            self._state = ModelState.LOADING
        self._is_current = is_warm = False
        retry_time = 0.0  # a load whose answer was lost may still run in Triton until then
        first_backoff = Backoff(first=2, longest=60)  # the index has LOADING during a first load, if it was not lost
        reload_backoff = Backoff(first=30, longest=600)  # the index has READY during a reload
        while True:
            states = {version.state for version in self._read_versions()}
            if self._has_other_content:
                return
            self._monitor.crashes.raise_for(self.source.name, self.content)
            if self._monitor.index is None:
                retry_time, self._is_current = 0.0, False
            elif await self._verify_content():
                self._monitor.crashes.end_load(self.source.name, self.content)
                await self._set_trace_rate()
                if is_warm := is_warm or await self._warm_up():
                    await self._read_config()  # before: a pod that is reported ready is not polled again
                    self._set_ready()
                    backoff.reset()
            else:
                is_warm = False
                # A Triton that has restarted is not warm.
                self._is_warm = (self._is_warm and self.is_loaded) or self.source.warmup is None
                self._state = ModelState.LOADING
                if retry_time and "UNAVAILABLE" in states and "LOADING" not in states:
                    self._monitor.crashes.end_load(self.source.name, self.content)
                    raise self._build_load_failure("")
                is_due = not self._waits() and "LOADING" not in states and time.monotonic() >= retry_time
                is_due = is_due and self._may_load()
                # The index may be older than the end of a load that has just been answered.
                is_due = is_due and await self._monitor.refresh(before_load=True) is not None
                if is_due and not await self._verify_content() and self._may_load():
                    load_backoff = reload_backoff if "READY" in states else first_backoff
                    retry_time = 0.0 if await self._load() else time.monotonic() + load_backoff.draw_delay()
            await self._monitor.wait_for_update()

    async def _verify_content(self) -> bool:
        """Return True if Triton serves the content of the repository.

        It is read again from time to time: a load for an earlier manifest, whose client has gone, may end later.
        """
        if not self.is_loaded:
            self._is_current = False
        elif not self._is_current or time.monotonic() > self._verify_time:
            was_current = self._is_current
            with suppress(TritonUnavailableError):  # it is as before
                self._is_current = await self.has_current_content()
            self._verify_time = time.monotonic() + _VERIFY_SECONDS
            self._has_lost_content = not self._is_current and (was_current or self._has_lost_content)
        return self._is_current

    async def has_current_content(self) -> bool:
        """Return True if all versions in Triton have the content of the repository.

        Raises:
            TritonUnavailableError: Triton does not answer.
        """
        model = self._model or await run_in_thread(find_pipeline, self.source, self._settings)
        if model is None:
            return False
        contents = [await self._triton.read_content(self.source.name, version) for version in model.versions]
        return all(content == model.content for content in contents)

    async def _load(self) -> bool:
        """Load the model; return False if the answer was lost: Triton's configuration then shows the result."""
        began, self._config = time.monotonic(), None
        self._log.info("loading")
        self._monitor.crashes.begin_load(self.source.name, self.content)  # until Triton answers, or ends
        try:
            await self._triton.load(self.source.name)
        except TritonUnavailableError as error:
            self._log.warning("the load's answer was lost", detail=str(error))
            return False
        except TritonError as error:
            self._monitor.crashes.end_load(self.source.name, self.content)
            await self._monitor.wait_for_update()
            failure = self._build_load_failure(str(error))
            if is_out_of_memory(failure.message) and await self._unload_before():
                return await self._load()
            raise failure from error
        self._monitor.crashes.end_load(self.source.name, self.content)
        self._load_seconds = time.monotonic() - began
        return True

    async def _unload_before(self) -> bool:
        """Unload the content of before, which memory does not hold beside the new one; return True if it is gone.

        Requests to it fail from then on, so this is for a pod that has left its Services, and gets no requests over
        connections that clients keep open either.
        """
        if not self._is_in_memory() or not await self._wait_until_left():
            return False
        name = self.source.name
        try:
            if await find_busy([name], self._triton):
                self._log.warning("requests still reach the content of before", model=name)
                return False
            self._log.warning("unloads the content of before: memory does not hold both")
            await self._triton.unload(name)
        except (TritonUnavailableError, TritonError) as error:
            self._log.warning("not unloaded", detail=str(error))
            return False
        while self._is_in_memory():
            await self._monitor.wait_for_update()
        self._has_unloaded = True
        return True

    def _is_in_memory(self) -> bool:
        """Return True if Triton serves a version of the model, or has not released it yet."""
        return any(version.state in {"READY", "UNLOADING"} for version in self._read_versions())

    async def _warm_up(self) -> bool:
        """Warm the model after a load; return False if Triton became unavailable."""
        if self.source.warmup is None:
            return True
        assert self._model  # noqa: S101  set by _prepare
        self._state = ModelState.WARMING
        self._log.info("warming up")
        self._warmup_digest = await run_in_thread(digest_config_map, self.source.warmup, self._settings.warmup)
        try:
            self._warmup = await warm_up_pod(self.source, self._model.versions, self._settings)
        except TritonUnavailableError as error:
            self._log.warning("the warm-up lost Triton", detail=str(error))
            return False
        self._is_warm = not self._warmup.has_failed
        if not self._is_warm:
            changed = describe_changed_warmup(self._changed_warmup)
            raise Failure(Reason(self._warmup.reason), " ".join(filter(None, (self._warmup.message, changed))))
        self._log.info("warmed up", **self._warmup.model_dump(exclude_defaults=True))
        return True

    def _set_ready(self) -> None:
        self._missing_models = find_missing(self.callees, self._index)
        if self._state != ModelState.READY or self._failure:
            self._log.info("ready", load_seconds=round(self._load_seconds, 3))
        self._state, self._failure, self._last_failure = ModelState.READY, None, None

    async def _set_trace_rate(self) -> None:
        """Set the rate at which Triton traces the model, after each load: a Triton that has restarted lacks it."""
        rate = self._settings.trace_rates.get(self.source.name)
        if rate is None or self._config is not None:
            return
        try:
            await self._triton.set_trace_rate(self.source.name, rate)
        except (TritonError, TritonUnavailableError) as error:
            self._log.warning("the trace rate is not set", detail=str(error))

    async def _read_config(self) -> None:
        """Read the configuration that Triton uses, once after a load; without an answer the report has none."""
        if self._config is not None or self._model is None:
            return
        self._config = ()
        with suppress(TritonError, TritonUnavailableError):
            config = await self._triton.read_config(self.source.name)
            self._config = build_config_values(config, self._model.written)

    def _set_failure(self, failure: Failure) -> None:
        self._monitor.crashes.abandon_load(self.source.name)  # one whose answer was lost holds no other
        if not self._failure or self._failure.message != failure.message:
            self._log.warning("failed", reason=failure.reason, message=failure.message)
        self._state, self._failure = ModelState.FAILED, failure
        if not self.source.required:
            self._last_failure = failure

    def _build_load_failure(self, answer: str) -> Failure:
        """Return the failure of a load: the remedy, then Triton's messages."""
        words = self._join_messages(answer)
        missing = find_missing(self.callees, self._index)
        if any(name in words for name in missing):
            sentence = describe_missing(self.source.name, missing, self._models)
            return Failure(Reason.MODEL_MISSING, f"{sentence} Triton's words: {words}")
        overrides = describe_overrides(self._model) if self._model else ""
        return Failure(Reason.LOAD_FAILED, " ".join(filter(None, (explain(words), overrides))))

    def _may_load(self) -> bool:
        return self._monitor.crashes.may_load(self.source.name, self._models, self._index)

    def _waits(self) -> bool:
        """Return True, and report it, while the model may not be loaded.

        Triton has models of another set, or does not serve those that this one calls.
        """
        if (exchange := self._server.exchange) and not exchange.is_over:
            self._failure = exchange.failure
            return True
        if awaited := find_awaited(self.source.name, self._models, self._index):
            names = join_words((f"'{name}'" for name in awaited), "and")
            self._failure = Failure(Reason.WAITS_FOR_MODELS, f"Waits for {names}, which it calls.")
            if not self.source.required and any(self._models[name].is_left_out for name in awaited):
                self._last_failure = self._failure
        elif self._failure and self._failure.reason in _WAITING:
            self._failure = None
        return bool(awaited)

    @property
    def uses_response_cache(self) -> bool | None:
        """True if the model's configuration has Triton cache its answers; None: it is not read yet."""
        return self._model.response_cache if self._model else None

    @property
    def callees(self) -> tuple[str, ...]:
        """The models that this one calls, once its configuration is read; those of a pipeline are known before."""
        return self._model.callees if self._model else self._steps_of_pipeline

    @property
    def makes_calls(self) -> bool:
        """True if it may call models whose names its program does not show, once that is read."""
        return self._model is not None and self._model.makes_calls

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps of an ensemble, once its configuration is read; those of a pipeline are known before."""
        return self._model.steps if self._model else self._steps_of_pipeline

    @property
    def _steps_of_pipeline(self) -> tuple[str, ...]:
        return tuple(step.model for step in self.source.steps)

    def _join_messages(self, answer: str) -> str:
        """Return Triton's messages about a failed load: that of the answer, and those of the versions in the index."""
        versions = self._read_versions()
        reasons = [version.reason for version in versions if version.state == "UNAVAILABLE" and version.reason]
        others = [reason for reason in reasons if reason != "unloaded" and reason not in answer]
        return "; ".join([answer, *others]).strip()[:_LONGEST]

    def _read_versions(self) -> tuple[Version, ...]:
        return self._index.get(self.source.name, ())

    @property
    def _index(self) -> RepositoryIndex:
        """Triton's repository index; empty while Triton cannot serve models."""
        return self._monitor.index or {}

    def _compute_fetch_seconds(self) -> float:
        if self._state == ModelState.FETCHING:
            return round(time.monotonic() - self._fetch_began, 3)
        return self._model.seconds if self._model else 0.0
