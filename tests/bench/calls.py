"""A controller's calls in a namespace, as the API server's audit log has them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from tests.api.operator import WRITES, Audit

_STATUS: Final = "inferenceservices/status"
_CREATED: Final = 201


class Call(NamedTuple):
    """One call: when it came (RFC 3339, in UTC), what it does to which object, and the status code of its answer."""

    moment: str
    verb: str
    resource: str  # such as deployments, or inferenceservices/status
    name: str
    code: int

    @classmethod
    def parse(cls, entry: Mapping[str, Any]) -> Call:
        """Read an entry of the audit log."""
        ref = entry["objectRef"]
        resource = "/".join(filter(None, (ref.get("resource"), ref.get("subresource"))))
        code = entry.get("responseStatus", {}).get("code", 0)
        return cls(entry["requestReceivedTimestamp"], entry["verb"], resource, ref.get("name", ""), code)

    @property
    def is_write(self) -> bool:
        """Whether it changes an object."""
        return self.verb in WRITES

    @property
    def service(self) -> str:
        """The service to which the object belongs: its name begins the name of each object."""
        return re.split(r"[-.]", self.name)[0]


def find_calls(audit: Audit, namespace: str) -> list[Call]:
    """Return the calls of the controller for objects of a namespace; lists and watches have no name."""
    entries = (entry for entry in audit.calls() if entry.get("objectRef", {}).get("namespace") == namespace)
    return [Call.parse(entry) for entry in entries]


def count_writes_until_present(calls: Iterable[Call]) -> float:
    """Return the writes for one service until all its children exist and it has its first status; the mean of services.

    >>> def call(moment, resource, code, name="s1-a"):
    ...     return Call(moment, "patch", resource, name, code)
    >>> first = [call("1", "deployments", 201), call("2", "deployments", 200), call("3", "services", 201)]
    >>> statuses = [call(moment, "inferenceservices/status", 200, "s1") for moment in "45"]
    >>> count_writes_until_present([*first, *statuses])
    4.0
    """
    of_services: dict[str, list[Call]] = defaultdict(list)
    for call in sorted(call for call in calls if call.is_write):
        of_services[call.service].append(call)
    counts = [_count_until_present(writes) for writes in of_services.values()]
    return round(sum(counts) / max(1, len(counts)), 2)


def _count_until_present(writes: list[Call]) -> int:
    """Return how many of a service's writes, in order, come until its last child and its first status."""
    statuses = [number for number, call in enumerate(writes, start=1) if call.resource == _STATUS]
    created = [
        number for number, call in enumerate(writes, start=1) if call.code == _CREATED and call.resource != "events"
    ]
    return max([*created, *statuses[:1]], default=len(writes))
