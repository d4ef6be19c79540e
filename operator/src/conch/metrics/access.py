"""Who asks, and whether they may: delegated to the API server, as every aggregated API does.

Requests come through the API server, which names the user in headers and proves itself by the certificate of its front
proxy; or straight from somebody with a token, which the API server is asked about (TokenReview). Whether that user may
is asked too (SubjectAccessReview). https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/
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

# A right that was taken away holds for so long, one that was given is refused for so long: k8s.io/apiserver's own
# delegating options have 10 seconds for both, and an autoscaler that asks every 15 would never profit from that.
ALLOWED_SECONDS: Final = 60.0
REFUSED_SECONDS: Final = 10.0
ANONYMOUS: Final = "system:anonymous"
AUTHENTICATED: Final = "system:authenticated"
_REMEMBERED: Final = 4096  # answers of each kind
# Tokens that are under review at a time: a client may send any number of invented ones.
_REVIEWS: Final = 8
_RIGHTS: Final = 16  # reviews of rights at a time; a user has a quarter of them


@dataclass(frozen=True)
class User:
    """Somebody, as the API server knows them."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True)
class FrontProxy:
    """How the API server introduces users: the ConfigMap kube-system/extension-apiserver-authentication."""

    authority: str  # PEM: who signs the proxy's certificate
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
        """Whether the certificate by which a peer proved itself is the front proxy's; None: it brought none."""
        return common_name is not None and (not self.names or common_name in self.names)

    def user(self, common_name: str | None, headers: "Headers") -> User | None:
        """Return whom the front proxy speaks for; None if it is not the front proxy, or names nobody.

        Args:
            common_name: of the certificate by which the peer proved itself to `authority`; None if it did not.
            headers: all values, by name in lower case.
        """
        if not self.is_named(common_name):
            return None
        name = next((values[0] for header in self.user_headers if (values := headers.get(header.lower()))), "")
        if not name:
            return None
        groups = tuple(group for header in self.group_headers for group in headers.get(header.lower(), ()))
        # As k8s.io/apiserver does: the API server itself asks for discovery as a user of no group.
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
_Answers = dict[object, tuple[float, Any]]  # until when an answer holds, and the answer


class BusyError(Exception):
    """As many tokens as may be are under review."""


class Access:
    """Asks the API server about tokens and rights, and remembers the answers for a while."""

    def __init__(self, server: Server, clock: Callable[[], float] = time.monotonic) -> None:
        self._server = server
        self._clock = clock
        # Apart: invented tokens take no place from the rights.
        self._tokens: _Answers = {}
        self._rights: _Answers = {}
        self._reviews = 0
        self._limiter = FairLimiter(_RIGHTS)

    async def who(self, token: str) -> User | None:
        """Return whose token it is; None if nobody's.

        Raises:
            CallError: the API server does not tell.
            BusyError: too many tokens are under review.
        """
        known_by = hashlib.sha256(token.encode()).digest()  # a token itself is kept nowhere
        user: User | None = await self._remember(self._tokens, known_by, lambda: self._who(token))
        return user

    async def may(self, user: User, attributes: Mapping[str, str], *, path: str = "") -> bool:
        """Whether a user may do something to a resource, or get a path that is no resource.

        Raises:
            CallError: the API server does not tell.
        """
        about = (user, tuple(sorted(attributes.items())), path)
        allowed: bool = await self._remember(self._rights, about, lambda: self._may(user, attributes, path))
        return allowed

    async def _remember(self, known: _Answers, about: object, ask: Callable[[], Awaitable[Any]]) -> Any:
        now = self._clock()
        until, answer = known.get(about, (0.0, None))
        if now < until:
            return answer
        answer = await ask()
        known.pop(about, None)
        while len(known) >= _REMEMBERED:
            del known[next(iter(known))]  # the oldest
        known[about] = now + (ALLOWED_SECONDS if answer else REFUSED_SECONDS), answer
        return answer

    async def _who(self, token: str) -> User | None:
        if self._reviews >= _REVIEWS:
            raise BusyError
        self._reviews += 1
        try:
            status = await self._review(TOKEN_REVIEW, {"token": token})
        finally:
            self._reviews -= 1
        if not status.get("authenticated"):
            return None
        told = status["user"]
        extra = tuple((key, tuple(values)) for key, values in sorted((told.get("extra") or {}).items()))
        return User(told["username"], tuple(told.get("groups") or ()), told.get("uid", ""), extra)

    async def _may(self, user: User, attributes: Mapping[str, str], path: str) -> bool:
        about = (
            {"nonResourceAttributes": {"path": path, "verb": "get"}}
            if path
            else {"resourceAttributes": dict(attributes)}
        )
        who = {
            "user": user.name,
            "groups": list(user.groups),
            "uid": user.uid,
            "extra": {key: list(values) for key, values in user.extra},
        }
        async with self._limiter.turn(user.name):
            return bool((await self._review(ACCESS_REVIEW, {**who, **about})).get("allowed"))

    async def _review(self, kind: Kind, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        body = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": {}, "spec": spec}
        answer: Mapping[str, Any] = (await self._server.create(kind, body)).get("status") or {}
        return answer
