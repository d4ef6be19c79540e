"""What the models of a pod read of one another: the order of loads, an exchange, and warnings depend on it."""

from __future__ import annotations

from typing import Protocol

from conch_contract import ModelState


class Loadable(Protocol):
    """A model of the manifest, as far as the order of loads depends on it."""

    @property
    def callees(self) -> tuple[str, ...]:
        """Names of the models that it calls, once its configuration is read."""

    @property
    def steps(self) -> tuple[str, ...]:
        """Names of the steps of an ensemble, which are among its callees."""

    @property
    def content(self) -> str:
        """Identifier of its content in the repository; empty: it has none yet."""

    @property
    def state(self) -> ModelState:
        """Its state, of which Triton's restarts may not be known yet."""

    @property
    def is_loaded(self) -> bool:
        """True if Triton serves its versions, with whatever content."""

    @property
    def is_current(self) -> bool:
        """True if Triton serves it with the content of the manifest, and not with that of before."""

    @property
    def is_left_out(self) -> bool:
        """True if it has failed, and the pod serves the others without it."""


class PodModel(Loadable, Protocol):
    """A model of the manifest, as far as the others of its pod depend on it."""

    @property
    def makes_calls(self) -> bool:
        """True if it may call models whose names its program does not show."""

    @property
    def uses_response_cache(self) -> bool | None:
        """True if its configuration has Triton cache its answers; None: it is not read yet."""

    @property
    def is_laid_out(self) -> bool:
        """True if its files are in the repository."""

    @property
    def may_be_missing(self) -> bool:
        """True if its new content has failed and the pod is ready without it; that of before may serve yet."""

    async def has_current_content(self) -> bool:
        """Return True if Triton serves the content of the repository."""
