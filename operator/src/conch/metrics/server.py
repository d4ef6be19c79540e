"""The API itself: who asks, may they, what do they ask, what do the pods say."""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from aiohttp import web

from conch.api.metrics import METRICS_GROUP, TritonMetric
from conch.listening import trust
from conch.metrics import answers
from conch.metrics.access import Access, BusyError, FrontProxy, User
from conch.metrics.pods import Pods, ServingPod
from conch.metrics.question import ALL, NAMESPACES, PODS, ROOT, SERVICES, Question, question
from conch.metrics.scraper import Scraper
from conch.metrics.selector import Selector, parse
from conch.metrics.window import Rates, told
from conch.write import CallError

# Seconds between the two looks that the first question about a pod takes: else an autoscaler that begins would be told
# nothing until it asks again.
SECOND_LOOK: Final = 1.0
_log = structlog.get_logger("conch.metrics")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RefusedError(Exception):
    """A question that has no answer: the code, the reason and the sentence of a metav1.Status."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = answers.failure(code, reason, message)
        self.code = code


@dataclass(frozen=True)
class MetricsApi:
    """What the API answers from."""

    pods: Pods
    scraper: Scraper
    access: Access
    proxy: FrontProxy

    def app(self) -> web.Application:
        """Return the application; every path is authorized."""
        app = web.Application(middlewares=[self._guard])
        app.add_routes(
            [
                web.get(f"/apis/{METRICS_GROUP}", _told(answers.group())),
                web.get(ROOT, _told(answers.resources())),
                web.get("/openapi/v2", _told(answers.openapi())),
                web.get("/openapi/v3", _told(answers.openapi_paths())),
                web.get(ROOT + "/{path:.+}", self._answer),
            ]
        )
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Let in who may, and turn what goes wrong into a Status."""
        try:
            await self._admit(request)
            return await handler(request)
        except RefusedError as refused:
            return web.json_response(refused.status, status=refused.code)
        except web.HTTPNotFound:
            return _status(404, "NotFound", f"the metrics API has no {request.path}")
        except web.HTTPMethodNotAllowed:
            return _status(405, "MethodNotAllowed", "metrics can be read and nothing else")
        except BusyError:
            return _status(429, "TooManyRequests", "too many unknown tokens are under review; ask again in a second")
        except CallError as error:
            _log.warning("the API server does not tell who may", error=error.message)
            return _status(503, "ServiceUnavailable", f"the API server does not tell who may ask: {error.message}")

    async def _admit(self, request: web.Request) -> None:
        """Refuse who is unknown, or may not.

        Raises:
            RefusedError: who asks is unknown, or has no right to.
            CallError: the API server does not tell.
        """
        user = await self._user(request)
        if user is None:
            raise RefusedError(401, "Unauthorized", "Unauthorized: ask through the API server, or bring a token")
        asked = question(request.path.removeprefix(ROOT)) if request.path.startswith(f"{ROOT}/") else None
        allowed = (
            await self.access.may(user, asked.attributes)
            if asked
            else await self.access.may(user, {}, path=request.path)
        )
        if not allowed:
            what = f"get {asked.metric} of {asked.resource} in namespace {asked.namespace}" if asked else request.path
            raise RefusedError(403, "Forbidden", f"{user.name} may not {what} ({METRICS_GROUP})")

    async def _user(self, request: web.Request) -> User | None:
        headers: dict[str, list[str]] = {}
        for name, value in request.headers.items():
            headers.setdefault(name.lower(), []).append(value)
        common_name = _common_name(request)
        if self.proxy.is_named(common_name):
            trust(request)
        if (user := self.proxy.user(common_name, headers)) is not None:
            return user
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return await self.access.who(token.strip()) if scheme.lower() == "bearer" and token.strip() else None

    async def _answer(self, request: web.Request) -> web.Response:
        asked = question(request.path.removeprefix(ROOT))
        if asked is None:
            raise RefusedError(404, "NotFound", f"the metrics API has no {request.path}; see {ROOT}")
        metric = _metric(asked)
        selected = _selector(request, "labelSelector")
        # Our metrics have no labels of their own.
        found = [] if not _selector(request, "metricLabelSelector")({}) else await self._values(asked, metric, selected)
        if not found and asked.resource == PODS and asked.name != ALL:
            message = f"pod {asked.namespace}/{asked.name} tells no {metric.value} at this moment"
            raise RefusedError(404, "NotFound", message)
        return web.json_response(answers.values(asked.resource, asked.namespace, metric, found, time.time()))

    async def _values(self, asked: Question, metric: TritonMetric, selected: Selector) -> list[answers.Value]:
        pods = self._pods(asked, selected)
        done = await self._look(pods)
        parts: dict[str, list[Rates]] = {}
        for pod in pods:
            if pod.uid in done:
                parts.setdefault(_object(asked, pod), []).append(done[pod.uid])
        found = []
        for name, several in sorted(parts.items()):
            rates = Rates.together(several)
            value = told(rates).get(metric) if rates else None
            if rates and value is not None:
                found.append(answers.Value(name, value, rates.seconds))
        return found

    def _pods(self, asked: Question, selected: Selector) -> list[ServingPod]:
        """The pods from which a question is answered."""
        if asked.resource == NAMESPACES:
            names = self.pods.namespaces() if asked.namespace == ALL else [asked.namespace]
            return [pod for name in names for pod in self.pods.find(name, lambda pod: selected(pod.labels))]
        return self.pods.find(
            asked.namespace,
            lambda pod: asked.name in {ALL, _object(asked, pod)} and selected(pod.labels),
        )

    async def _look(self, pods: Sequence[ServingPod]) -> dict[str, Rates]:
        done = await self.scraper.look(pods)
        if not done and any(pod.ready for pod in pods):
            await asyncio.sleep(SECOND_LOOK)
            done = await self.scraper.look(pods)
        return dict(done)


def _object(asked: Question, pod: ServingPod) -> str:
    """The name of the object that a pod's numbers are told of."""
    return {PODS: pod.name, SERVICES: pod.service, NAMESPACES: pod.namespace}[asked.resource]


def _metric(asked: Question) -> TritonMetric:
    try:
        return TritonMetric(asked.metric)
    except ValueError:
        known = ", ".join(metric.value for metric in TritonMetric)
        message = f"there is no metric {asked.metric} of {asked.resource}; there are {known}"
        raise RefusedError(404, "NotFound", message) from None


def _selector(request: web.Request, name: str) -> Selector:
    try:
        return parse(request.query.get(name, ""))
    except ValueError as error:
        raise RefusedError(400, "BadRequest", f"{name}: {error}") from error


def _told(document: answers.Document) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def tell(_: web.Request) -> web.Response:
        return web.json_response(document)

    return tell


def _status(code: int, reason: str, message: str) -> web.Response:
    return web.json_response(answers.failure(code, reason, message), status=code)


def _common_name(request: web.Request) -> str | None:
    """The common name of the certificate by which the peer proved itself; None if it brought none."""
    tls: Any = request.transport.get_extra_info("ssl_object") if request.transport else None
    certificate = tls.getpeercert() if tls else None
    for part in (certificate or {}).get("subject", ()):
        for key, value in part:
            if key == "commonName":
                return str(value)
    return "" if certificate else None


def tls(proxy: FrontProxy) -> ssl.SSLContext:
    """Return a TLS context that asks clients for the front proxy's certificate, and takes those who have none."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=proxy.authority)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context
