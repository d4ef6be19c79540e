"""The monitor of Triton: its repository index, its restarts, and the proof that its control endpoints are closed."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Final

import structlog

from conch_agent.crashes import Crashes
from conch_agent.guard import verify_control_closed
from conch_agent.reasons import Failure, Reason
from conch_agent.settings import Settings
from conch_agent.triton import RepositoryIndex, Triton, TritonError, TritonUnavailableError

READY_INTERVAL: Final = 1.0  # seconds between two reads of the index while all models are ready
STARTUP_INTERVAL: Final = 0.2  # seconds between two reads of the index while a model is not ready, or Triton has ended
_CONNECT_TIMEOUT: Final = 1.0  # seconds


class TritonMonitor:
    """Reads Triton's repository index for all models of the pod.

    The index of a Triton is published only after its control endpoints were verified to be closed. A restart of Triton
    requires a new verification.

    Attributes:
        index: The last index; None: Triton cannot serve models now.
        failure: The reason why `index` is None.
        crashes: The models that may have ended Triton.
    """

    def __init__(self, settings: Settings, triton: Triton) -> None:
        self.index: RepositoryIndex | None = None
        self.failure = _build_waiting_failure(settings, "no request sent yet")
        self.crashes = Crashes()
        self._settings = settings
        self._triton = triton
        self._is_verified = False
        self._has_answered = False  # the Triton that runs, or has just ended
        self._loaded: set[str] = set()  # models that it has loaded once
        self._read_time = 0.0  # when the last read of the index began
        self._count_time = 0.0  # when the last read of the statistics began
        self._lock = asyncio.Lock()
        self._updates = asyncio.Condition()
        self._log = structlog.get_logger()

    async def refresh(self, *, before_load: bool = False) -> RepositoryIndex | None:
        """Read Triton's index, publish it as `index` and return it.

        Args:
            before_load: True before a load. While no model has a state, a restart of Triton does not show in its index,
                so that control is verified again.
        """
        requested = time.monotonic()
        async with self._lock:
            # One read is for all that wait for one: hundreds of models are loaded side by side.
            if self._read_time < requested or (before_load and not _find_models_with_state(self.index or {})):
                self._read_time = time.monotonic()
                index = await self._read_index(before_load=before_load)
                async with self._updates:
                    self.index = index
                    self._updates.notify_all()
                if index is not None:
                    await self._read_counts(index)
            return self.index

    @property
    def has_answered(self) -> bool:
        """True if Triton has answered since it started, as far as its end is known."""
        return self._has_answered

    @property
    def ready_interval(self) -> float:
        """Seconds between two reads while all models are ready: shorter for some minutes after Triton has ended.

        Then it may end again so soon after its start that a longer one misses the requests before.
        """
        return STARTUP_INTERVAL if self.crashes.requests.has_ends else READY_INTERVAL

    async def _read_counts(self, index: RepositoryIndex) -> None:
        """Read how many requests Triton has answered, of all models at once; a model alone takes no other with it."""
        if len(index) <= 1:
            self.crashes.requests.forget()
        elif self._read_time - self._count_time >= self.ready_interval:
            self._count_time = self._read_time
            with suppress(TritonError, TritonUnavailableError):  # the next read of the index has the reason
                self.crashes.requests.record_counts(await self._triton.count_requests())

    async def _read_index(self, *, before_load: bool) -> RepositoryIndex | None:
        """Return Triton's index; None: `failure` is the reason."""
        try:
            index = await self._triton.read_index()
            if self._has_restarted(index):
                self._record_end("models have lost their states")
                self._is_verified = False
            self._has_answered, self._loaded = True, _find_models_with_state(index)
            if not self._is_verified or (before_load and not _find_models_with_state(index)):
                was_verified, self._is_verified = self._is_verified, False
                await verify_control_closed(self._settings.triton_grpc, self._settings.triton_http)
                self._is_verified = True
                if not was_verified:
                    self._log.info("control is closed", proof="gRPC and HTTP refuse without the key")
        except TritonUnavailableError as error:
            self._is_verified = False
            self.failure = _build_waiting_failure(self._settings, str(error))
            # One that is slow takes connections.
            if self._has_answered and await _refuses_connections(self._settings):
                self._record_end("its port is closed")
        except TritonError as error:
            self._is_verified = False
            message = (
                f"Triton refuses the control key of the pod: {error}. Start Triton with the key in the control volume."
            )
            self.failure = Failure(Reason.TRITON_UNREACHABLE, message)
        except Failure as failure:
            if failure.message != self.failure.message:
                self._log.error("control is open", message=failure.message)
            self.failure = failure
        else:
            return index
        return None

    async def wait_for_update(self) -> RepositoryIndex | None:
        """Wait until the index is read again, and return it."""
        async with self._updates:
            await self._updates.wait()
            return self.index

    def _has_restarted(self, index: RepositoryIndex) -> bool:
        """Return True if a model has lost its state. A model keeps a state from its first load until Triton ends."""
        return any(name in index for name in self._loaded - _find_models_with_state(index))

    def _record_end(self, proof: str) -> None:
        self._log.warning("triton ended", proof=proof)
        self._has_answered, self._loaded = False, set()
        self.crashes.record_end()


def _find_models_with_state(index: RepositoryIndex) -> set[str]:
    """Return the names of the models that this process has loaded once."""
    return {name for name, versions in index.items() if any(version.state for version in versions)}


async def _refuses_connections(settings: Settings) -> bool:
    """Return True if no process listens on the port of Triton's gRPC API."""
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT):
            _, writer = await asyncio.open_connection(settings.triton_host, settings.triton_grpc_port)
    except ConnectionRefusedError:
        return True
    except (OSError, TimeoutError):
        return False
    writer.close()
    return False


def _build_waiting_failure(settings: Settings, detail: str) -> Failure:
    cause = detail.splitlines()[0][:200] if detail else "no answer"
    message = f"Waiting for Triton at {settings.triton_grpc} ({cause})."
    return Failure(Reason.TRITON_UNREACHABLE, message)
