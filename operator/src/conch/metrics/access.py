"""Authentication and authorization of requests: delegated to the API server, as in every aggregated API.

Requests come through the API server, which sends the user in headers and the client certificate of its front proxy;
or directly from a client with a token, which the API server reviews (TokenReview). It reviews the user's right
too (SubjectAccessReview). https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/
"""

import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from conch.api.kinds import Kind
from conch.signals.limiter import FairLimiter
from conch.write import Server

TOKEN_REVIEW: Final = Kind("authentication.k8s.io", "v1", "TokenReview", "tokenreviews")
ACCESS_REVIEW: Final = Kind("authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews")

# Seconds for which a revoked right stays valid, and a granted one refused. k8s.io/apiserver's delegating options
# have 10 seconds for both; an autoscaler sends a request every 15 seconds and would never find a cached review.
ALLOWED_SECONDS: Final = 60.0
REFUSED_SECONDS: Final = 10.0
ANONYMOUS: Final = "system:anonymous"
AUTHENTICATED: Final = "system:authenticated"
_CACHE_SIZE: Final = 4096  # reviews of each kind
# Tokens that are under review at a time: a client may send any number of invented ones.
_REVIEWS: Final = 8
_RIGHTS: Final = 16  # reviews of rights at a time; a user has a quarter of them


@dataclass(frozen=True)
class User:
    """A user, as the API server identifies it."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True)
class FrontProxy:
    """The front proxy of the API server, by ConfigMap kube-system/extension-apiserver-authentication."""

    authority: str  # PEM: the CA of the proxy's certificate
    names: tuple[str, ...]  # the common names that it may have; empty: any
    user_headers: tuple[str, ...]
    group_headers: tuple[str, ...]
    extra_prefixes: tuple[str, ...]
    uid_headers: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: Mapping[str, str]) -> "FrontProxy":
        """Read the ConfigMap's data.

        Raises:
            ValueError: the cluster has no front proxy, so no aggregated API can work in it.
        """
        authority = data.get("requestheader-client-ca-file", "")
        if not authority:
            raise ValueError(
                "ConfigMap kube-system/extension-apiserver-authentication has no requestheader-client-ca-file: this"
                " API server has no aggregation layer (--requestheader-client-ca-file)"
            )
        return cls(
            authority,
            *(
                tuple(json.loads(data.get(f"requestheader-{key}", "[]")))
                for key in ("allowed-names", "username-headers", "group-headers", "extra-headers-prefix", "uid-headers")
            ),
        )

    def is_named(self, common_name: str | None) -> bool:
        """Whether a verified client certificate is the front proxy's; None: the client has none."""
        return common_name is not None and (not self.names or common_name in self.names)

    def user(self, common_name: str | None, headers: "Headers") -> User | None:
        """Return the user of a request from the front proxy; None: the client is another one, or there is no user.

        Args:
            common_name: of the client certificate, which `authority` has signed; None without one.
            headers: all values, by name in lower case.
        """
        if not self.is_named(common_name):
            return None
        name = next((values[0] for header in self.user_headers if (values := headers.get(header.lower()))), "")
        if not name:
            return None
        groups = tuple(group for header in self.group_headers for group in headers.get(header.lower(), ()))
        # As k8s.io/apiserver does: the API server itself requests discovery as a user of no group.
        if name != ANONYMOUS and AUTHENTICATED not in groups:
            groups = (*groups, AUTHENTICATED)
        uid = next((values[0] for header in self.uid_headers if (values := headers.get(header.lower()))), "")
        extra = tuple(
            (header[len(prefix) :], tuple(values))
            for prefix in (prefix.lower() for prefix in self.extra_prefixes)
            for header, values in headers.items()
            if header.startswith(prefix)
        )
        return User(name, groups, uid, extra)


Headers = Mapping[str, list[str]]
_Reviews = dict[object, tuple[float, Any]]  # when a review expires, and its result


class BusyError(Exception):
    """The maximum number of tokens is under review."""


class Access:
    """Sends reviews of tokens and rights to the API server, and caches their results for some seconds."""

    def __init__(self, server: Server, clock: Callable[[], float] = time.monotonic) -> None:
        self._server = server
        self._clock = clock
        # Separate caches: invented tokens evict no rights.
        self._tokens: _Reviews = {}
        self._rights: _Reviews = {}
        self._reviews = 0
        self._limiter = FairLimiter(_RIGHTS)

    async def authenticate(self, token: str) -> User | None:
        """Return the user of a token; None: the token is invalid.

        Raises:
            CallError: the API server did not review it.
            BusyError: too many tokens are under review.
        """
        token_hash = hashlib.sha256(token.encode()).digest()  # the token itself is never stored
        user: User | None = await self._cache(self._tokens, token_hash, lambda: self._review_token(token))
        return user

    async def is_allowed(self, user: User, attributes: Mapping[str, str], *, path: str = "") -> bool:
        """Return whether a user may access a resource, or get a path that is not a resource.

        Raises:
            CallError: the API server did not review it.
        """
        right = (user, tuple(sorted(attributes.items())), path)
        allowed: bool = await self._cache(self._rights, right, lambda: self._review_access(user, attributes, path))
        return allowed

    async def _cache(self, cache: _Reviews, subject: object, review: Callable[[], Awaitable[Any]]) -> Any:
        now = self._clock()
        expiry, result = cache.get(subject, (0.0, None))
        if now < expiry:
            return result
        result = await review()
        cache.pop(subject, None)
        while len(cache) >= _CACHE_SIZE:
            del cache[next(iter(cache))]  # the oldest
        cache[subject] = now + (ALLOWED_SECONDS if result else REFUSED_SECONDS), result
        return result

    async def _review_token(self, token: str) -> User | None:
        if self._reviews >= _REVIEWS:
            raise BusyError
        self._reviews += 1
        try:
            status = await self._review(TOKEN_REVIEW, {"token": token})
        finally:
            self._reviews -= 1
        if not status.get("authenticated"):
            return None
        user = status["user"]
        extra = tuple((key, tuple(values)) for key, values in sorted((user.get("extra") or {}).items()))
        return User(user["username"], tuple(user.get("groups") or ()), user.get("uid", ""), extra)

    async def _review_access(self, user: User, attributes: Mapping[str, str], path: str) -> bool:
        right = (
            {"nonResourceAttributes": {"path": path, "verb": "get"}}
            if path
            else {"resourceAttributes": dict(attributes)}
        )
        subject = {
            "user": user.name,
            "groups": list(user.groups),
            "uid": user.uid,
            "extra": {key: list(values) for key, values in user.extra},
        }
        async with self._limiter.turn(user.name):
            return bool((await self._review(ACCESS_REVIEW, {**subject, **right})).get("allowed"))

    async def _review(self, kind: Kind, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        body = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": {}, "spec": spec}
        answer: Mapping[str, Any] = (await self._server.create(kind, body)).get("status") or {}
        return answer
