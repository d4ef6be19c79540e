"""Tombstones of deleted objects, by which the store ignores late events of them."""

from itertools import islice
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Tombstones(Generic[Value]):
    """Values of the last deleted objects. The number is limited, and namespaces share it fairly.

    Thousands of deletions in one namespace displace its own entries, not those of another.

    >>> dead = Tombstones[int](most=3)
    >>> for uid in ("a", "b", "c"):
    ...     dead.put("busy", uid, 1)
    >>> dead.put("calm", "d", 1)
    >>> list(dead.of("busy")), list(dead.of("calm"))
    (['b', 'c'], ['d'])
    """

    def __init__(self, most: int = 4096) -> None:
        """Create tombstones for at most `most` objects in all."""
        self._most = most
        self._count = 0
        self._namespaces: dict[str, dict[str, Value]] = {}

    def put(self, namespace: str, uid: str, value: Value) -> None:
        """Add an object. Beyond the limit, remove the oldest ones of the namespace with the most objects."""
        own = self._namespaces.setdefault(namespace, {})
        self._count += uid not in own
        own.pop(uid, None)
        own[uid] = value
        if self._count > self._most:
            largest, objects = max(self._namespaces.items(), key=lambda item: len(item[1]))
            for oldest in list(islice(objects, max(1, len(objects) // 8))):
                del objects[oldest]
                self._count -= 1
            if not objects:
                del self._namespaces[largest]

    def of(self, namespace: str) -> dict[str, Value]:
        """Return the values of a namespace's objects by uid, oldest first."""
        return self._namespaces.get(namespace, {})
