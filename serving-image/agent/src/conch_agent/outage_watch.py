"""The source of a model that is served from the cache because the source was away: whether it has the same files.

The content that serves stays, whatever the source has: it is the revision's.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from conch_agent.backoff import Backoff
from conch_agent.places import without_query
from conch_agent.reasons import Failure, Reason, WarningReason
from conch_agent.repository_model import RepositoryModel
from conch_agent.settings import Settings
from conch_agent.sources import open_source
from conch_agent.threads import run_in_thread
from conch_contract import ModelSource, ModelWarning
from conch_contract.report import Origin

_FIRST: Final = 2.0  # seconds before the first attempt
_LONGEST: Final = 300.0  # seconds between two attempts: the pod serves meanwhile
_MOST: Final = 1000  # characters of a message


class OutageWatch:
    """Lists the source until it answers, and has the warning about it.

    Attributes:
        warning: ServedFromCache while the source is away, SourceChanged once it has other files; None: it has the same,
            or the files are not from the cache in its place.
    """

    def __init__(self, settings: Settings) -> None:
        """Create the watch, which does nothing until it follows a model.

        Args:
            settings: The agent's settings.
        """
        self.warning: ModelWarning | None = None
        self._settings = settings
        self._model: RepositoryModel | None = None
        self._task: asyncio.Task[None] | None = None

    def follow(self, source: ModelSource, model: RepositoryModel) -> None:
        """Watch the source of a model in place of the one before.

        Args:
            source: The model in the manifest.
            model: The model in the repository.
        """
        if model is self._model:
            return
        if self._task:
            self._task.cancel()
        self._model, self._task, self.warning = model, None, None
        place = next((place for place in source.places if place.storage_uri == model.uri), None)
        if model.origin == Origin.CACHE and model.detour and place:
            self.warning = _build_warning(model, model.detour)
            self._task = asyncio.create_task(self._run(place, model))

    async def close(self) -> None:
        """End the attempts."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, place: ModelSource, model: RepositoryModel) -> None:
        backoff, log = Backoff(_FIRST, _LONGEST), structlog.get_logger().bind(model=place.name)
        delay = backoff.draw_delay()
        while True:
            await asyncio.sleep(delay)
            delay = backoff.draw_delay()
            try:
                source = await run_in_thread(open_source, place.storage_uri, self._settings, place.secret)
                listing = await source.list_files()
            except Failure as failure:
                if not failure.is_outage:  # it answers, and refuses
                    self.warning = _build_warning(model, failure.message)
                delay = max(delay, failure.retry_after)
            except Exception as error:
                log.exception("unexpected")
                self.warning = _build_warning(model, f"{Reason.INTERNAL}: {type(error).__name__}: {error}")
            else:
                is_same = listing.identity == model.identity
                log.info("the source answers again", has_same_files=is_same)
                self.warning = None if is_same else _build_changed(model)
                return


def _build_warning(model: RepositoryModel, cause: str) -> ModelWarning:
    message = (
        f"The files are from the cache: {without_query(model.uri)} had them at {model.fetched}, when they were fetched"
        f" last. The agent goes on trying the source. {cause}"
    )
    return ModelWarning(reason=WarningReason.SERVED_FROM_CACHE, message=message[:_MOST])


def _build_changed(model: RepositoryModel) -> ModelWarning:
    message = (
        f"{without_query(model.uri)} answers again, and has other files than those of {model.fetched}, which this"
        " revision serves from the cache. To serve the new ones, change the predictor, such as an annotation in"
        " pod.annotations, so that it becomes a new revision; storage.watch: Rollout makes one by itself."
    )
    return ModelWarning(reason=WarningReason.SOURCE_CHANGED, message=message)
