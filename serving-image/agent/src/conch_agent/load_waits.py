"""What a model waits for before Triton loads it, and how that is reported.

It waits for the models that it calls, for the exchange of a set of models, and for an earlier load of its own.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from tritonclient.grpc.model_config_pb2 import ModelConfig

from conch_agent.callees import find_awaited
from conch_agent.model_status import ModelStatus
from conch_agent.pod import Server
from conch_agent.reasons import Failure, Reason
from conch_agent.triton import TritonError, TritonUnavailableError
from conch_contract import ModelSource, ModelState
from conch_contract.sentences import join_words

_WAITING: Final = frozenset({Reason.WAITS_FOR_MODELS, Reason.WAITS_FOR_CLIENTS, Reason.UNLOAD_FAILED})


class LoadWaits:
    """The waits of one model."""

    def __init__(self, name: str, server: Server, status: ModelStatus) -> None:
        """Create them.

        Args:
            name: Name of the model.
            server: The Triton that serves it, and the models of its pod.
            status: The model's status, which has what it waits for.
        """
        self._name = name
        self._server = server
        self._status = status

    def must_wait(self, *, required: bool) -> bool:
        """Return True, and report it, while the model may not be loaded.

        Triton has models of another set, or does not serve those that this one calls.

        Args:
            required: True if the pod is not ready without the model.

        Raises:
            Failure: ModelMissing, or ModelCycle.
        """
        status, models = self._status, self._server.models
        if (exchange := self._server.exchange) and not exchange.is_over:
            status.failure = exchange.failure
            return True
        if awaited := find_awaited(self._name, models, self._server.monitor.index or {}):
            names = join_words((f"'{name}'" for name in awaited), "and")
            status.failure = Failure(Reason.WAITS_FOR_MODELS, f"Waits for {names}, which it calls.")
            if not required and any(models[name].is_left_out for name in awaited):
                status.last_failure = status.failure
        elif status.failure and status.failure.reason in _WAITING:
            status.failure = None
        return bool(awaited)

    async def wait_for_steps(self, source: ModelSource) -> dict[str, ModelConfig]:
        """Return the configurations of the steps of a pipeline, once Triton serves them.

        Args:
            source: The pipeline.

        Raises:
            Failure: As in `must_wait`.
        """
        triton = self._server.triton
        while True:
            if self.must_wait(required=source.required):
                self._status.state = ModelState.LOADING
            else:
                with suppress(TritonError, TritonUnavailableError):  # Triton has just ended, or a step has
                    return {step.model: await triton.read_config(step.model) for step in source.steps}
            await self._server.monitor.wait_for_update()

    async def wait_for_load(self) -> None:
        """Wait until Triton has answered a load of the content of before: meanwhile it reads the folder."""
        if self._server.triton.is_loading(self._name):
            message = (
                "The files are here. Triton still loads the model's content of before, which cannot be cancelled. If"
                " that does not end, delete the pod."
            )
            self._status.set_waiting(Failure(Reason.WAITS_FOR_LOAD, message))
            await self._server.triton.wait_for_load(self._name)
            self._status.failure = None
