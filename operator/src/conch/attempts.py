"""Counts of consecutive failures, by service. In memory: a restart resets them."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Generic, TypeVar

from conch.api.kinds import ServiceKey

Name = TypeVar("Name", bound=Hashable)


class Attempts(Generic[Name]):
    """Consecutive failed attempts, by service and by name."""

    def __init__(self) -> None:
        self._counts: dict[ServiceKey, dict[Name, int]] = {}

    def count(self, key: ServiceKey, names: Iterable[Name]) -> Mapping[Name, int]:
        """Count one more failure of each of these names, reset all others, and return the counts."""
        before = self._counts.pop(key, {})
        counts = {each: before.get(each, 0) + 1 for each in names}
        if counts:
            self._counts[key] = counts
        return counts
