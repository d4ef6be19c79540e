"""One model of the manifest, from Pending to Ready and back: only this room knows the order of things."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import structlog

from conch_agent.backoff import Backoff
from conch_agent.dependencies import describe_missing_models
from conch_agent.model_warnings import build_warnings, describe_changed_warmup, describe_overrides
from conch_agent.prepare import Laid, Preparation
from conch_agent.reasons import Failure, Reason
from conch_agent.settings import Settings
from conch_agent.threads import in_thread
from conch_agent.triton import Refused, Triton, TritonGone, Version, View
from conch_agent.warmup.pod import warm_pod
from conch_agent.warmup.requests import digest_config_map
from conch_agent.watch import Watch
from conch_contract import ModelReport, ModelSource, ModelState, VersionReport, WarmupReport
from conch_contract.remedies import explain

_LONGEST_WORDS: Final = 2000
_STATES: Final = {"READY": ModelState.READY, "LOADING": ModelState.LOADING, "UNAVAILABLE": ModelState.FAILED}

# Tried again seldom: each try costs Triton a load, or requests.
_COSTLY: Final = frozenset(
    {
        Reason.LOAD_FAILED,
        Reason.MODEL_MISSING,
        Reason.WARMUP_FAILED,
        Reason.WARMUP_WRONG,
        Reason.WARMUP_MISSING,
        Reason.WARMUP_TIMED_OUT,
        Reason.WARMUP_UNREACHABLE,
    }
)


class Model:
    """Runs until cancelled; `report` is what the operator reads, `serving` whether users may be sent here.

    `warm` says that the pod serves the model already, in the content that this source is about to replace.
    """

    def __init__(
        self, source: ModelSource, settings: Settings, triton: Triton, watch: Watch, *, warm: bool = False
    ) -> None:
        self.source = source
        self._settings = settings
        self._triton = triton
        self._watch = watch
        self._state = ModelState.PENDING
        self._failure: Failure | None = None
        self._laid: Laid | None = None
        self._preparation: Preparation | None = None
        self._load_seconds = 0.0
        self._missing: tuple[str, ...] = ()  # models that this one calls, absent from Triton when it was loaded
        self._warm = warm or source.warmup is None
        self._warmup: WarmupReport | None = None
        self._warmup_digest = ""  # of the requests in the ConfigMap with which it was last warmed
        self._fetch_began = 0.0
        self._log = structlog.get_logger().bind(model=source.name)

    @property
    def serving(self) -> bool:
        """Tell whether the wanted versions answer, and have been warmed where that is asked for."""
        return self._warm and self._loaded and not self._is_other

    @property
    def _is_other(self) -> bool:
        """Whether the files that are laid out are not those of the revision."""
        return bool(self._laid and self.source.digest and self._laid.digest != self.source.digest)

    @property
    def _changed_warmup(self) -> str:
        """The ConfigMap of warm-up requests, where the revision's first pod was warmed with others; else empty."""
        first = self.source.warmup_digest
        is_other = bool(self.source.warmup and first and self._warmup_digest and self._warmup_digest != first)
        return self.source.warmup.config_map if self.source.warmup and is_other else ""

    def pin(self, source: ModelSource) -> None:
        """Set what the revision's first pod served and was warmed with; the rest of the source is unchanged."""
        self.source = source
        if self._preparation:
            self._preparation.pin(source)

    @property
    def _loaded(self) -> bool:
        """Tell whether Triton has the wanted versions READY, if only in the content that a newer one replaces."""
        wanted = self._laid.versions if self._laid else ()
        ready = {version.version for version in self._versions() if version.state == "READY"}
        return bool(ready) and (ready >= set(wanted) if wanted else True)

    @property
    def report(self) -> ModelReport:
        """The state of this moment."""
        progress = self._preparation.progress if self._preparation else None
        state, failure = self._state, self._failure
        if self._watch.view is None and state not in {ModelState.FETCHING, ModelState.PENDING}:
            failure = self._watch.failure if self._laid else failure
            state = ModelState.FAILED if failure and failure.reason == Reason.CONTROL_OPEN else state
            state = ModelState.LOADING if state == ModelState.READY else state
        return ModelReport(
            name=self.source.name,
            state=state,
            reason=failure.reason if failure else "",
            message=failure.message if failure else "",
            versions=tuple(
                VersionReport(
                    version=version.version,
                    state=_STATES.get(version.state, ModelState.PENDING),
                    reason=version.reason[:_LONGEST_WORDS],
                )
                for version in self._versions()
                if version.state and version.version
            ),
            digest=self._laid.digest if self._laid else "",
            object_versions=self._laid.object_versions if self._laid and not self.source.object_versions else {},
            bytes_fetched=progress.fetched if progress else 0,
            bytes_total=progress.total if progress else 0,
            fetch_seconds=self._fetch_seconds(),
            load_seconds=round(self._load_seconds, 3),
            warnings=build_warnings(self.source.name, self._laid, self._missing, self._changed_warmup)
            if self._laid
            else (),
            warmup=self._warmup,
            warmup_digest=self._warmup_digest,
        )

    async def run(self) -> None:
        """Fetch, lay out, load, watch; for ever."""
        fetching, loading = Backoff(first=1, longest=60), Backoff(first=10, longest=60)
        while True:
            try:
                await self._prepare()
                fetching.reset()
                await self._serve(loading)
                continue
            except Failure as failure:
                self._fail(failure)
                wait = (loading if failure.reason in _COSTLY else fetching).next()
            except Exception as error:  # noqa: BLE001  one model's surprise must not end the others
                self._log.exception("unexpected")
                self._fail(Failure(Reason.INTERNAL, f"{type(error).__name__}: {error}"))
                wait = fetching.next()
            await asyncio.sleep(wait)

    async def _prepare(self) -> None:
        """Bring the repository's folder to what is wanted; a retry after a failed load asks the source first."""
        if self._preparation is None:
            self._preparation = Preparation(self.source, self._settings)
            self._laid = await in_thread(self._preparation.laid)
            if self._laid:
                self._log.info("laid out already", digest=self._laid.digest)
                return
        kept = self._laid
        laid = await self._preparation.fresh(kept, self._fetching)
        if laid is not kept:
            self._log.info("laid out", digest=laid.digest, bytes=laid.size, seconds=laid.seconds)
        self._laid = laid

    def _fetching(self) -> None:
        self._state, self._failure = ModelState.FETCHING, None  # the store has answered: what it said before is over
        self._fetch_began = time.monotonic()

    async def _serve(self, backoff: Backoff) -> None:
        """Load where Triton lacks it, warm, and look on; leaves by Failure, or where other content is wanted."""
        if self._state != ModelState.READY:
            self._state = ModelState.LOADING
        confirmed = warmed = False
        again = 0.0  # not before: a load whose answer was lost may go on in Triton
        first = Backoff(first=2, longest=60)  # the index says LOADING of a first load; until then it may have been lost
        reload = Backoff(first=30, longest=600)  # and of a reload it says READY all along
        while True:
            states = {version.state for version in self._versions()}
            if self._is_other:
                return  # the source is asked again
            if not self._loaded:
                confirmed = False
            if self._watch.view is None:
                again = 0.0
            elif self._loaded and (confirmed := confirmed or await self._is_current()):
                if warmed := warmed or await self._warm_up():
                    self._ready()
                    backoff.reset()
            else:
                warmed = False
                self._warm = (self._warm and self._loaded) or self.source.warmup is None  # a new Triton is cold
                self._state = ModelState.LOADING
                if again and "UNAVAILABLE" in states and "LOADING" not in states:
                    raise self._load_failure("")
                due = "LOADING" not in states and time.monotonic() >= again
                # A Triton that has loaded nothing yet may have been replaced by another one between two views.
                if due and await self._watch.look(prove=True) is not None:
                    patience = reload if "READY" in states else first
                    again = 0.0 if await self._load() else time.monotonic() + patience.next()
            await self._watch.next()

    async def _is_current(self) -> bool:
        """Tell whether every version that Triton serves is of the content that is laid out."""
        assert self._laid  # noqa: S101  set by _prepare
        try:
            contents = [await self._triton.content(self.source.name, version) for version in self._laid.versions]
        except TritonGone:
            return False
        return all(content == self._laid.content for content in contents)

    async def _load(self) -> bool:
        """Request the load; return False if the answer was lost: then Triton's configuration shows the result."""
        began = time.monotonic()
        self._log.info("loading")
        try:
            await self._triton.load(self.source.name)
        except TritonGone as gone:
            self._log.warning("the load's answer was lost", detail=str(gone))
            return False
        except Refused as refusal:
            await self._watch.next()
            raise self._load_failure(str(refusal)) from refusal
        self._load_seconds = time.monotonic() - began
        return True

    async def _warm_up(self) -> bool:
        """Warm what Triton has newly loaded; False if Triton went away meanwhile."""
        if self.source.warmup is None:
            return True
        assert self._laid  # noqa: S101  set by _prepare
        self._state = ModelState.WARMING
        self._log.info("warming up")
        self._warmup_digest = await in_thread(digest_config_map, self.source.warmup, self._settings.warmup)
        try:
            self._warmup = await warm_pod(self.source, self._laid.versions, self._settings)
        except TritonGone as gone:
            self._log.warning("the warm-up lost Triton", detail=str(gone))
            return False
        self._warm = not self._warmup.failed
        if not self._warm:
            changed = describe_changed_warmup(self._changed_warmup)
            raise Failure(Reason(self._warmup.reason), " ".join(filter(None, (self._warmup.message, changed))))
        self._log.info("warmed up", **self._warmup.model_dump(exclude_defaults=True))
        return True

    def _ready(self) -> None:
        self._missing = self._missing_callees()
        if self._state != ModelState.READY or self._failure:
            self._log.info("ready", load_seconds=round(self._load_seconds, 3))
        self._state, self._failure = ModelState.READY, None

    def _fail(self, failure: Failure) -> None:
        if not self._failure or self._failure.message != failure.message:
            self._log.warning("failed", reason=failure.reason, message=failure.message)
        self._state, self._failure = ModelState.FAILED, failure

    def _load_failure(self, answer: str) -> Failure:
        """Return why the load failed: what the user can do, then Triton's words."""
        words = self._words(answer)
        missing = self._missing_callees()
        if any(name in words for name in missing):
            sentence = describe_missing_models(self.source.name, missing)
            return Failure(Reason.MODEL_MISSING, f"{sentence} Triton's words: {words}")
        overrides = describe_overrides(self._laid) if self._laid else ""
        return Failure(Reason.LOAD_FAILED, " ".join(filter(None, (explain(words), overrides))))

    def _missing_callees(self) -> tuple[str, ...]:
        """Return the models that this one calls and that Triton does not serve."""
        view: View = self._watch.view or {}
        served = {name for name, versions in view.items() if any(version.state == "READY" for version in versions)}
        return tuple(name for name in (self._laid.callees if self._laid else ()) if name not in served)

    def _words(self, answer: str) -> str:
        """Return Triton's words on a failed load: the index has them by version, the answer in general."""
        reasons = [version.reason for version in self._versions() if version.state == "UNAVAILABLE" and version.reason]
        told = [reason for reason in reasons if reason != "unloaded" and reason not in answer]
        return "; ".join([answer, *told]).strip()[:_LONGEST_WORDS]

    def _versions(self) -> tuple[Version, ...]:
        view: View = self._watch.view or {}
        return view.get(self.source.name, ())

    def _fetch_seconds(self) -> float:
        if self._state == ModelState.FETCHING:
            return round(time.monotonic() - self._fetch_began, 3)
        return self._laid.seconds if self._laid else 0.0
