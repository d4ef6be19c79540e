"""Installations of Conch, each known by the Lease of its replicas: <namespace>/<name>.

The Lease has the services that the installation serves, as two annotations. So another one sees that a service is no
longer served there, whose label or whose installation's settings have changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NamedTuple, Self

from conch.api.label_selector import parse_selector
from conch.api.names import ANNOTATION_LABEL_SELECTOR, ANNOTATION_NAMESPACES
from conch.observe.fields import mapping, text

_parse: Final = lru_cache(64)(parse_selector)


@dataclass(frozen=True)
class Scope:
    """The services that an installation serves.

    Attributes:
        namespaces: Those of the services; empty: all.
        selector: A label selector of the services; empty: all.
    """

    namespaces: frozenset[str] = field(default_factory=frozenset)
    selector: str = ""

    @classmethod
    def read(cls, annotations: Any) -> Self:
        """Return what a Lease states; without the annotations, or with others than Conch writes, everything.

        Args:
            annotations: those of the Lease.
        """
        found = mapping(annotations)
        selector = text(found.get(ANNOTATION_LABEL_SELECTOR))
        try:
            parse_selector(selector)
        except ValueError:
            selector = ""
        namespaces = text(found.get(ANNOTATION_NAMESPACES))
        return cls(frozenset(name for name in namespaces.split(",") if name), selector)

    def build_annotations(self) -> dict[str, str]:
        """Return the annotations of the Lease."""
        namespaces = ",".join(sorted(self.namespaces))
        return {ANNOTATION_NAMESPACES: namespaces, ANNOTATION_LABEL_SELECTOR: self.selector}

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Return whether the selector matches the labels of a service."""
        return _parse(self.selector)(labels)

    def covers(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Return whether the installation serves a service.

        Args:
            namespace: that of the service.
            labels: those of the service.

        >>> Scope(frozenset({"a"}), "!shard").covers("a", {})
        True
        >>> Scope(frozenset({"a"}), "!shard").covers("a", {"shard": "1"})
        False
        >>> Scope(frozenset({"a"})).covers("b", {})
        False
        """
        return (not self.namespaces or namespace in self.namespaces) and self.selects(labels)


class LeaseRecord(NamedTuple):
    """The result of a read of a Lease."""

    exists: bool
    content: str = ""  # changes with each renewal; empty: the operator may not read it
    scope: Scope = Scope()

    def is_renewed(self, since: Self) -> bool:
        """Whether the Lease was renewed, made or deleted since another read. An annotation is no renewal."""
        return (self.exists, self.content) != (since.exists, since.content)


NO_LEASE = LeaseRecord(exists=False)
