"""Events of the service, for `kubectl describe`. A lost event has no effect: the status has the same."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import structlog

from conch.api.kinds import EVENT, INFERENCE_SERVICE, ServiceKey
from conch.api.text import clean
from conch.decide import Event
from conch.write.errors import CallError
from conch.write.server import Server

CONTROLLER: Final = "conch.dev/operator"
# Bytes, events.k8s.io/v1.
_NOTE_LIMIT: Final = 1024
_WORD_LIMIT: Final = 128
_log = structlog.get_logger()


class EventWriter:
    """Writes the events of one operator process."""

    def __init__(self, server: Server, instance: str) -> None:
        self._server = server
        self._instance = instance

    async def record(self, key: ServiceKey, uid: str, events: Sequence[Event], moment: float) -> None:
        """Write events. A failure is only logged."""
        for event in events:
            stamp = datetime.fromtimestamp(moment, UTC)
            suffix = hashlib.sha256(f"{uid}{event}{moment}".encode()).hexdigest()[:16]
            body = {
                "apiVersion": EVENT.api_version,
                "kind": EVENT.name,
                "metadata": {"name": f"{key.name}.{suffix}", "namespace": key.namespace},
                "eventTime": stamp.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                "reportingController": CONTROLLER,
                "reportingInstance": clean(self._instance, _WORD_LIMIT),
                "action": event.action,
                "reason": clean(event.reason, _WORD_LIMIT),
                "type": event.type,
                "note": clean(event.note, _NOTE_LIMIT),
                "regarding": {
                    "apiVersion": INFERENCE_SERVICE.api_version,
                    "kind": INFERENCE_SERVICE.name,
                    "name": key.name,
                    "namespace": key.namespace,
                    "uid": uid,
                },
            }
            try:
                await self._server.create(EVENT, body)
            except CallError as error:
                if error.is_namespace_gone:
                    return
                _log.warning("event not written", reason=event.reason, error=str(error))
