"""Publication of the certificate in the APIService's CA bundle, and its renewal.

The chart creates and deletes the APIService; this process writes only `spec.caBundle`. An APIService that names
another Service is never written.
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
from conch.metrics.certificate import Certificate, build_bundle, issue, now
from conch.telemetry import Health
from conch.write import CallError, Server

FIELD_MANAGER: Final = "conch-metrics"
# Seconds in which every API server reads a changed bundle, before a certificate that only this bundle has is served.
PROPAGATION_SECONDS: Final = 5.0
# Between two checks that the bundle still has the certificate: an apply of the APIService may remove it.
_CHECK_SECONDS: Final = 15.0
_RETRY_SECONDS: Final = 1.0  # after a call that failed
_log = structlog.get_logger("conch.metrics")


@dataclass(frozen=True)
class Registration:
    """The registration of this process in the cluster's API."""

    server: Server
    service: str
    namespace: str
    life: timedelta
    context: SSLContext
    health: Health

    @property
    def host(self) -> str:
        """The host name that API servers verify, whatever address they connect to."""
        return f"{self.service}.{self.namespace}.svc"

    def issue_first(self) -> Certificate:
        """Return the first certificate, and serve it. The API server trusts it once `keep` has published it."""
        certificate = issue(self.host, now(), self.life)
        certificate.serve(self.context)
        return certificate

    async def keep(self, certificate: Certificate) -> None:
        """Publish the certificate in the APIService and renew it, until cancelled."""
        next_certificate: Certificate | None = None
        while True:
            if next_certificate is None and now() >= _compute_renewal(certificate, self.life):
                next_certificate = issue(self.host, now(), self.life)
            try:
                problem = await self._publish([certificate, *([next_certificate] if next_certificate else [])])
            except CallError as error:
                # The published certificates stay trusted while the API server does not answer.
                _log.warning("the APIService cannot be kept", error=error.message, retry_seconds=_RETRY_SECONDS)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if problem is None:
                await asyncio.sleep(PROPAGATION_SECONDS)
                if next_certificate is not None:
                    next_certificate.serve(self.context)
                    _log.info("a new certificate is served", ends=next_certificate.expiry.isoformat())
                    certificate, next_certificate = next_certificate, None
                self.health.set_ready("answering")
            else:
                _log.error("the APIService is not written", why=problem)
                self.health.set_not_ready(problem)
            left = (_compute_renewal(certificate, self.life) - now()).total_seconds()
            await asyncio.sleep(min(max(left, 1.0), _CHECK_SECONDS))

    async def _publish(self, certificates: list[Certificate]) -> str | None:
        """Write these certificates into the bundle unless it has them; return the reason if it cannot be done.

        Raises:
            CallError: the API server failed, or another client wrote the APIService meanwhile.
        """
        there = await self.server.get("", Ref(API_SERVICE, NAME))
        if there is None:
            return f"there is no APIService {NAME}; install the chart with autoscaling.metricsApi builtin"
        if (problem := check_target(there, self.namespace, self.service)) is not None:
            return problem
        known = base64.b64decode(there["spec"].get("caBundle") or "")
        if all(certificate.pem in known for certificate in certificates):
            return None
        wanted = base64.b64encode(build_bundle(known, certificates, now())).decode()
        # With the version that was read, since another replica may write its own certificate at the same time.
        version = {"resourceVersion": there["metadata"]["resourceVersion"]}
        body = {"metadata": version, "spec": {"caBundle": wanted}}
        await self.server.merge("", Ref(API_SERVICE, NAME), body, FIELD_MANAGER)
        return None


def check_target(there: Mapping[str, Any], namespace: str, service: str) -> str | None:
    """Return a message if an APIService names another Service; None if it names this one."""
    at = there["spec"].get("service") or {}
    if (at.get("namespace"), at.get("name")) == (namespace, service):
        return None
    target = f"{at['namespace']}/{at['name']}" if at else "the API server itself"
    return (
        f"APIService {NAME} names {target} instead of {namespace}/{service}, and is not written; install Conch with"
        " autoscaling.metricsApi prometheus-adapter or none, or remove that APIService"
    )


def _compute_renewal(certificate: Certificate, life: timedelta) -> datetime:
    """Return the time to renew a certificate: after two thirds of its life."""
    return certificate.expiry - life / 3
