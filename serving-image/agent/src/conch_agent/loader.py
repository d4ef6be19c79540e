"""A model in Triton: the versions and the content that are served, and the loads and unloads that change them."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import suppress
from typing import Final

import structlog

from conch_agent.backoff import Backoff
from conch_agent.callees import describe_missing, find_missing
from conch_agent.crashes import ContentLoads
from conch_agent.effective_config import build_config_values
from conch_agent.exchange import find_busy
from conch_agent.metrics import ModelMetrics, Phase
from conch_agent.model_warnings import describe_overrides
from conch_agent.pod import Server
from conch_agent.reasons import Failure, Reason
from conch_agent.repository_model import RepositoryModel
from conch_agent.triton import (
    LONGEST_MESSAGE,
    RepositoryIndex,
    TritonError,
    TritonUnavailableError,
    Version,
)
from conch_contract import ConfigValue
from conch_contract.remedies import explain, is_out_of_memory

_VERIFY_SECONDS: Final = 10.0  # between two reads of the content that Triton serves


class Loader:
    """Loads a model, and knows what Triton serves of it.

    Attributes:
        is_current: True if Triton is known to serve the content of the repository.
        has_former: True if Triton is known to serve another content than that of the repository.
        has_lost_content: True if Triton has finished another load since: that of a manifest of before.
        has_trace_rate: True if Triton traces the model as the pod is configured.
        has_unloaded: True if the content of before was unloaded first.
        load_seconds: Duration of the last load.
        config: The configuration that Triton uses; None: it is not read since the last load.
    """

    def __init__(self, name: str, server: Server, metrics: ModelMetrics) -> None:
        """Create the loader.

        Args:
            name: The model's name.
            server: The Triton that serves it.
            metrics: Counts the loads that succeed.
        """
        self.is_current = False
        self.has_former = False
        self.has_lost_content = False
        self.has_unloaded = False
        self.load_seconds = 0.0
        self.config: tuple[ConfigValue, ...] | None = None
        self._name = name
        self._metrics = metrics
        self._trace_rate = server.settings.trace_rates.get(name)
        self.has_trace_rate = self._trace_rate is None
        self._triton = server.triton
        self._monitor = server.monitor
        self._wait_until_left = server.wait_until_left
        self._models = server.models
        self._verify_time = 0.0  # when the content is read again
        self._log = structlog.get_logger().bind(model=name)
        self.begin()

    def begin(self) -> None:
        """Begin with a model that has just been laid out, or that is tried again after a failure."""
        self.is_current = False
        self._retry_time = 0.0  # a load whose answer was lost may still run in Triton until then
        # The index has LOADING during a first load, if it was not lost, and READY during a reload.
        self._first_backoff = Backoff(first=2, longest=60)
        self._reload_backoff = Backoff(first=30, longest=600)

    def note_outage(self) -> None:
        """Record that Triton cannot serve models: no load runs, and its content has to be read again."""
        self.is_current, self._retry_time = False, 0.0
        self.has_trace_rate = self._trace_rate is None

    @property
    def index(self) -> RepositoryIndex:
        """Triton's repository index; empty while Triton cannot serve models."""
        return self._monitor.index or {}

    @property
    def versions(self) -> tuple[Version, ...]:
        """The model's versions in Triton's repository index."""
        return self.index.get(self._name, ())

    def serves(self, versions: Collection[int]) -> bool:
        """Return True if Triton serves versions of the model, with whatever content.

        Args:
            versions: The versions; none: any will do.
        """
        ready = {version.version for version in self.versions if version.state == "READY"}
        return bool(ready) and ready >= set(versions)

    async def verify(self, model: RepositoryModel) -> bool:
        """Return True if Triton serves the content of the repository.

        It is read again from time to time: a load for an earlier manifest, whose client has gone, may end later.

        Args:
            model: The model in the repository.
        """
        if self._triton.is_loading(self._name) or not self.serves(model.versions):
            self.is_current = False  # a load for an earlier manifest may end with other content
        elif not self.is_current or time.monotonic() > self._verify_time:
            was_current = self.is_current
            with suppress(TritonUnavailableError):  # it is as before
                self.is_current = await self.has_content(model)
            self._verify_time = time.monotonic() + _VERIFY_SECONDS
            self.has_lost_content = not self.is_current and (was_current or self.has_lost_content)
        with suppress(TritonUnavailableError):
            self.has_former = not self.is_current and await self._has_former(model)
        return self.is_current

    async def _has_former(self, model: RepositoryModel) -> bool:
        """Return True if no version in Triton has the content of the repository, and it serves one."""
        ready = [version.version for version in self.versions if version.state == "READY"]
        contents = [await self._triton.read_content(self._name, version) for version in ready]
        return bool(contents) and model.content not in contents

    async def has_content(self, model: RepositoryModel) -> bool:
        """Return True if all versions in Triton have the content of the repository.

        Args:
            model: The model in the repository.

        Raises:
            TritonUnavailableError: Triton does not answer.
        """
        contents = [await self._triton.read_content(self._name, version) for version in model.versions]
        return all(content == model.content for content in contents)

    async def set_trace_rate(self) -> None:
        """Set the rate at which Triton traces the model, once after its first load in a Triton."""
        if self._trace_rate is None or self.has_trace_rate:
            return
        try:
            await self._triton.set_trace_rate(self._name, self._trace_rate)
        except TritonUnavailableError as error:  # it is set at the next read of the index
            self._log.warning("the trace rate is not set", detail=str(error))
            return
        except TritonError as error:
            self._log.warning("the trace rate is refused", detail=str(error))
        self.has_trace_rate = True

    async def read_config(self, model: RepositoryModel) -> None:
        """Read the configuration that Triton uses, once after a load; without an answer there is none.

        Args:
            model: The model in the repository.
        """
        if self.config is not None:
            return
        self.config = ()
        with suppress(TritonError, TritonUnavailableError):
            config = await self._triton.read_config(self._name)
            self.config = build_config_values(config, model.written)

    def raise_for_lost_load(self, model: RepositoryModel, states: Collection[str]) -> None:
        """Raise the failure of a load whose answer was lost, once the index has it.

        Args:
            model: The model in the repository.
            states: States of its versions in Triton's repository index.

        Raises:
            Failure: The load failed.
        """
        if self._retry_time and "UNAVAILABLE" in states and "LOADING" not in states:
            self._bind(model).end()
            raise self._build_load_failure(model, "")

    async def load_if_due(self, model: RepositoryModel, states: Collection[str]) -> None:
        """Load the model, unless Triton loads it already, or loads another one before.

        Args:
            model: The model in the repository.
            states: States of its versions in Triton's repository index.

        Raises:
            Failure: The load failed.
        """
        if self._triton.is_loading(self._name) or "LOADING" in states or time.monotonic() < self._retry_time:
            return
        if not self._may_load():
            return
        # The index may be older than the end of a load that has just been answered.
        if await self._monitor.refresh(before_load=True) is None:
            return
        if await self.verify(model) or not self._may_load():
            return
        backoff = self._reload_backoff if "READY" in states else self._first_backoff
        self._retry_time = 0.0 if await self._load(model) else time.monotonic() + backoff.draw_delay()

    def _may_load(self) -> bool:
        return self._monitor.crashes.may_load(self._name, self._models, self.index)

    def _bind(self, model: RepositoryModel) -> ContentLoads:
        return self._monitor.crashes.bind(self._name, model.content)

    async def _load(self, model: RepositoryModel) -> bool:
        """Load the model; return False if the answer was lost: Triton's configuration then shows the result."""
        began, self.config = time.monotonic(), None
        if not self.serves(()):
            self.has_trace_rate = self._trace_rate is None
        loads = self._bind(model)
        self._log.info("loading")
        loads.begin()  # until Triton answers, or ends
        try:
            await self._triton.load(self._name)
        except TritonUnavailableError as error:
            self._log.warning("the load's answer was lost", detail=str(error))
            return False
        except TritonError as error:
            loads.end()
            await self._monitor.wait_for_update()
            failure = self._build_load_failure(model, str(error))
            if is_out_of_memory(failure.message) and await self._unload_before():
                return await self._load(model)
            raise failure from error
        loads.end()
        self.load_seconds = time.monotonic() - began
        self._metrics.add(Phase.LOAD, self.load_seconds)
        return True

    async def _unload_before(self) -> bool:
        """Unload the content of before, which memory does not hold beside the new one; return True if it is gone.

        Requests to it fail from then on, so this is for a pod that has left its Services, and gets no requests over
        connections that clients keep open either.
        """
        if not self._is_in_memory() or not await self._wait_until_left():
            return False
        try:
            if await find_busy([self._name], self._triton):
                self._log.warning("requests still reach the content of before", model=self._name)
                return False
            self._log.warning("unloads the content of before: memory does not hold both")
            await self._triton.unload(self._name)
        except (TritonUnavailableError, TritonError) as error:
            self._log.warning("not unloaded", detail=str(error))
            return False
        while self._is_in_memory():
            await self._monitor.wait_for_update()
        self.has_unloaded = True
        return True

    def _is_in_memory(self) -> bool:
        """Return True if Triton serves a version of the model, or has not released it yet."""
        return any(version.state in {"READY", "UNLOADING"} for version in self.versions)

    def _build_load_failure(self, model: RepositoryModel, answer: str) -> Failure:
        """Return the failure of a load: the remedy, then Triton's messages."""
        words = self._join_messages(answer)
        missing = find_missing(model.callees, self.index)
        if any(name in words for name in missing):
            sentence = describe_missing(self._name, missing, self._models)
            return Failure(Reason.MODEL_MISSING, f"{sentence} Triton's words: {words}")
        return Failure(Reason.LOAD_FAILED, " ".join(filter(None, (explain(words), describe_overrides(model)))))

    def _join_messages(self, answer: str) -> str:
        """Return Triton's messages about a failed load: that of the answer, and those of the versions in the index."""
        reasons = [version.reason for version in self.versions if version.state == "UNAVAILABLE" and version.reason]
        others = [reason for reason in reasons if reason != "unloaded" and reason not in answer]
        return "; ".join([answer, *others]).strip()[:LONGEST_MESSAGE]
