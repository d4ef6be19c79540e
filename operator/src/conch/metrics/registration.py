"""Keeps the APIService believing our certificate, and changes the certificate in time.

The chart makes the APIService and takes it away; all that is written here is `spec.caBundle`. One that leads to
somebody else's Service is never touched.
"""

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from ssl import SSLContext
from typing import Any, Final

import structlog

from conch.api.kinds import API_SERVICE, Ref
from conch.api.metrics import API_SERVICE_NAME as NAME
from conch.metrics.certificate import Certificate, bundle, issue, now
from conch.telemetry import Health
from conch.write import CallError, Server

FIELD_MANAGER: Final = "conch-metrics"
# Seconds that every API server is given to take a changed bundle up, before a certificate is used that only it names.
TAKEN_UP: Final = 5.0
# Seconds between two looks at whether the bundle still names ours: somebody may apply an APIService without it.
_LOOK: Final = 15.0
_RETRY: Final = 1.0  # seconds after a call that failed
_log = structlog.get_logger("conch.metrics")


@dataclass(frozen=True)
class Registration:
    """Our place in the cluster's API."""

    server: Server
    service: str
    namespace: str
    life: timedelta
    context: SSLContext
    health: Health

    @property
    def host(self) -> str:
        """The name by which API servers call us, whatever address they use."""
        return f"{self.service}.{self.namespace}.svc"

    def first(self) -> Certificate:
        """Make a certificate and serve it, so that there is a server; nobody believes it yet."""
        certificate = issue(self.host, now(), self.life)
        certificate.serve(self.context)
        return certificate

    async def keep(self, certificate: Certificate) -> None:
        """Keep the APIService and the certificate as they shall be, until cancelled."""
        coming: Certificate | None = None
        while True:
            if coming is None and now() >= _renewal(certificate, self.life):
                coming = issue(self.host, now(), self.life)
            try:
                hindered = await self._publish([certificate, *([coming] if coming else [])])
            except CallError as error:
                # Who is believed stays so while the API server has other worries; it asks nobody then.
                _log.warning("the APIService cannot be kept", error=error.message, retry_seconds=_RETRY)
                await asyncio.sleep(_RETRY)
                continue
            if hindered is None:
                await asyncio.sleep(TAKEN_UP)
                if coming is not None:
                    coming.serve(self.context)
                    _log.info("a new certificate is served", ends=coming.ends.isoformat())
                    certificate, coming = coming, None
                self.health.good("answering")
            else:
                _log.error("the metrics API is not ours", why=hindered)
                self.health.hindered(hindered)
            left = (_renewal(certificate, self.life) - now()).total_seconds()
            await asyncio.sleep(min(max(left, 1.0), _LOOK))

    async def _publish(self, certificates: list[Certificate]) -> str | None:
        """Write our certificates into the bundle, unless they are there; return what hinders us.

        Raises:
            CallError: the API server failed, or somebody else wrote meanwhile.
        """
        there = await self.server.get("", Ref(API_SERVICE, NAME))
        if there is None:
            return f"there is no APIService {NAME}; install the chart with autoscaling.metricsApi builtin"
        if (stranger := owned_by(there, self.namespace, self.service)) is not None:
            return stranger
        known = base64.b64decode(there["spec"].get("caBundle") or "")
        if all(certificate.pem in known for certificate in certificates):
            return None
        wanted = base64.b64encode(bundle(known, certificates, now())).decode()
        # With the version that was read: another replica may be writing its own into it.
        version = {"resourceVersion": there["metadata"]["resourceVersion"]}
        body = {"metadata": version, "spec": {"caBundle": wanted}}
        await self.server.merge("", Ref(API_SERVICE, NAME), body, FIELD_MANAGER)
        return None


def owned_by(there: Mapping[str, Any], namespace: str, service: str) -> str | None:
    """Say whose an APIService is, and what to do, if it is not ours."""
    at = there["spec"].get("service") or {}
    if (at.get("namespace"), at.get("name")) == (namespace, service):
        return None
    owner = f"{at['namespace']}/{at['name']}" if at else "the API server itself"
    return (
        f"APIService {NAME} leads to {owner}, not to {namespace}/{service}, and is left alone; install Conch with"
        " autoscaling.metricsApi prometheus-adapter or none, or remove that APIService"
    )


def _renewal(certificate: Certificate, life: timedelta) -> datetime:
    """Two thirds of its life."""
    return certificate.ends - life / 3
