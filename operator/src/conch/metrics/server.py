"""The HTTP server of the metrics API: authentication, authorization, queries and their values."""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from aiohttp import web

from conch.api.label_selector import Selector, parse_selector
from conch.api.metrics import METRICS_GROUP, TritonMetric
from conch.listening import trust
from conch.metrics import answers
from conch.metrics.access import Access, BusyError, FrontProxy, User
from conch.metrics.pods import Pods, ServingPod
from conch.metrics.query import ALL, NAMESPACES, PODS, ROOT, SERVICES, MetricQuery, parse_query
from conch.metrics.scraper import Scraper
from conch.metrics.window import Rates, calculate_metrics
from conch.write import CallError

# Seconds between the two readings that the first request for a pod takes: otherwise a new autoscaler would get no value
# until its next request.
SECOND_READING: Final = 1.0
_log = structlog.get_logger("conch.metrics")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class StatusError(Exception):
    """A request without a value: the code, reason and message of a metav1.Status."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = answers.build_failure(code, reason, message)
        self.code = code


@dataclass(frozen=True)
class MetricsApi:
    """The metrics API: pods, their readings, and access reviews."""

    pods: Pods
    scraper: Scraper
    access: Access
    proxy: FrontProxy

    def app(self) -> web.Application:
        """Return the application; every path is authorized."""
        app = web.Application(middlewares=[self._guard])
        app.add_routes(
            [
                web.get(f"/apis/{METRICS_GROUP}", _build_handler(answers.build_group())),
                web.get(ROOT, _build_handler(answers.build_resources())),
                web.get("/openapi/v2", _build_handler(answers.build_openapi())),
                web.get("/openapi/v3", _build_handler(answers.build_openapi_index())),
                web.get(ROOT + "/{path:.+}", self._answer),
            ]
        )
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Authorize a request, and return errors as a Status."""
        try:
            await self._authorize(request)
            return await handler(request)
        except StatusError as error:
            return web.json_response(error.status, status=error.code)
        except web.HTTPNotFound:
            return _build_error_response(404, "NotFound", f"the metrics API has no {request.path}")
        except web.HTTPMethodNotAllowed:
            return _build_error_response(405, "MethodNotAllowed", "metrics can be read and nothing else")
        except BusyError:
            return _build_error_response(
                429, "TooManyRequests", "too many unknown tokens are under review; retry in a second"
            )
        except CallError as error:
            _log.warning("request not reviewed", error=error.message)
            return _build_error_response(
                503, "ServiceUnavailable", f"the API server did not review this request: {error.message}"
            )

    async def _authorize(self, request: web.Request) -> None:
        """Check the user of a request and its right.

        Raises:
            StatusError: the user is unknown, or has no right.
            CallError: the API server did not review it.
        """
        user = await self._authenticate(request)
        if user is None:
            message = "Unauthorized: send the request through the API server, or with a bearer token"
            raise StatusError(401, "Unauthorized", message)
        query = parse_query(request.path.removeprefix(ROOT)) if request.path.startswith(f"{ROOT}/") else None
        allowed = (
            await self.access.is_allowed(user, query.attributes)
            if query
            else await self.access.is_allowed(user, {}, path=request.path)
        )
        if not allowed:
            what = f"get {query.metric} of {query.resource} in namespace {query.namespace}" if query else request.path
            raise StatusError(403, "Forbidden", f"{user.name} may not {what} ({METRICS_GROUP})")

    async def _authenticate(self, request: web.Request) -> User | None:
        headers: dict[str, list[str]] = {}
        for name, value in request.headers.items():
            headers.setdefault(name.lower(), []).append(value)
        common_name = _get_common_name(request)
        if self.proxy.is_named(common_name):
            trust(request)
        if (user := self.proxy.user(common_name, headers)) is not None:
            return user
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return await self.access.authenticate(token.strip()) if scheme.lower() == "bearer" and token.strip() else None

    async def _answer(self, request: web.Request) -> web.Response:
        query = parse_query(request.path.removeprefix(ROOT))
        if query is None:
            raise StatusError(404, "NotFound", f"the metrics API has no {request.path}; see {ROOT}")
        metric = _parse_metric(query)
        selector = _parse_selector(request, "labelSelector")
        # The metrics have no labels of their own.
        found = (
            []
            if not _parse_selector(request, "metricLabelSelector")({})
            else await self._calculate_values(query, metric, selector)
        )
        if not found and query.resource == PODS and query.name != ALL:
            message = f"pod {query.namespace}/{query.name} has no value of {metric.value} at this moment"
            raise StatusError(404, "NotFound", message)
        return web.json_response(answers.build_values(query.resource, query.namespace, metric, found, time.time()))

    async def _calculate_values(
        self, query: MetricQuery, metric: TritonMetric, selector: Selector
    ) -> list[answers.Value]:
        pods = self._find_pods(query, selector)
        rates_by_uid = await self._scrape(pods)
        parts: dict[str, list[Rates]] = {}
        for pod in pods:
            if pod.uid in rates_by_uid:
                parts.setdefault(_get_object_name(query, pod), []).append(rates_by_uid[pod.uid])
        found = []
        for name, several in sorted(parts.items()):
            rates = Rates.combine(several)
            value = calculate_metrics(rates).get(metric) if rates else None
            if rates and value is not None:
                found.append(answers.Value(name, value, rates.seconds))
        return found

    def _find_pods(self, query: MetricQuery, selector: Selector) -> list[ServingPod]:
        """Return the pods of a query."""
        if query.resource == NAMESPACES:
            names = self.pods.namespaces() if query.namespace == ALL else [query.namespace]
            return [pod for name in names for pod in self.pods.find(name, lambda pod: selector(pod.labels))]
        return self.pods.find(
            query.namespace,
            lambda pod: query.name in {ALL, _get_object_name(query, pod)} and selector(pod.labels),
        )

    async def _scrape(self, pods: Sequence[ServingPod]) -> dict[str, Rates]:
        found = await self.scraper.scrape(pods)
        if not found and any(pod.ready for pod in pods):
            await asyncio.sleep(SECOND_READING)
            found = await self.scraper.scrape(pods)
        return dict(found)


def _get_object_name(query: MetricQuery, pod: ServingPod) -> str:
    """Return the name of the object to which a query adds a pod's values."""
    return {PODS: pod.name, SERVICES: pod.service, NAMESPACES: pod.namespace}[query.resource]


def _parse_metric(query: MetricQuery) -> TritonMetric:
    try:
        return TritonMetric(query.metric)
    except ValueError:
        known = ", ".join(metric.value for metric in TritonMetric)
        message = f"there is no metric {query.metric} of {query.resource}; there are {known}"
        raise StatusError(404, "NotFound", message) from None


def _parse_selector(request: web.Request, name: str) -> Selector:
    try:
        return parse_selector(request.query.get(name, ""))
    except ValueError as error:
        raise StatusError(400, "BadRequest", f"{name}: {error}") from error


def _build_handler(document: answers.Document) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(_: web.Request) -> web.Response:
        return web.json_response(document)

    return handle


def _build_error_response(code: int, reason: str, message: str) -> web.Response:
    return web.json_response(answers.build_failure(code, reason, message), status=code)


def _get_common_name(request: web.Request) -> str | None:
    """Return the common name of the client certificate; None if there is none."""
    tls: Any = request.transport.get_extra_info("ssl_object") if request.transport else None
    certificate = tls.getpeercert() if tls else None
    for part in (certificate or {}).get("subject", ()):
        for key, value in part:
            if key == "commonName":
                return str(value)
    return "" if certificate else None


def build_tls_context(proxy: FrontProxy) -> ssl.SSLContext:
    """Return a TLS context that requests the front proxy's certificate, and accepts clients without one."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=proxy.authority)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context
