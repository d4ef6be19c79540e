"""How often in a row something has failed, by service. In memory: after a restart it is counted anew."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Generic, TypeVar

from conch.api.kinds import ServiceKey

What = TypeVar("What", bound=Hashable)


class Attempts(Generic[What]):
    """Failed attempts in a row, by service and by what was attempted."""

    def __init__(self) -> None:
        self._failed: dict[ServiceKey, dict[What, int]] = {}

    def failed(self, key: ServiceKey, what: Iterable[What]) -> Mapping[What, int]:
        """Count what has failed this time, and forget the rest; return how often each has failed in a row."""
        before = self._failed.pop(key, {})
        counts = {each: before.get(each, 0) + 1 for each in what}
        if counts:
            self._failed[key] = counts
        return counts
