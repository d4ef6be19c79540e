"""The rules of an HTTPRoute as the API server has them: Conch's own, or as another writer changed them. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from conch.api.kinds import SERVICE
from conch.observe.fields import mapping, mappings, number, text


@dataclass(frozen=True)
class ObservedRule:
    """One rule: where its requests go, who gets copies of them, and which headers they have."""

    weights: Mapping[str, int]  # by Service
    copies: frozenset[str]  # Services
    headers: frozenset[str]  # names of headers, of all its matches


def observed_rules(route: Mapping[str, Any]) -> tuple[ObservedRule, ...]:
    """Return the rules of a route. Backends that are no Services of its namespace, and foreign filters, are left out.

    >>> observed_rules({"spec": {"rules": [{"backendRefs": [{"name": "a", "weight": 3}, {"name": "b"}]}]}})
    (ObservedRule(weights={'a': 3, 'b': 1}, copies=frozenset(), headers=frozenset()),)
    >>> observed_rules({"spec": {}})
    ()
    """
    namespace = mapping(route.get("metadata")).get("namespace")
    return tuple(_rule(rule, namespace) for rule in mappings(mapping(route.get("spec")).get("rules")))


def _rule(rule: Mapping[str, Any], namespace: Any) -> ObservedRule:
    references = [ref for ref in mappings(rule.get("backendRefs")) if _is_service(ref, namespace)]
    headers = (header for match in mappings(rule.get("matches")) for header in mappings(match.get("headers")))
    return ObservedRule(
        weights={text(ref.get("name")): number(ref.get("weight"), 1) for ref in references},
        copies=frozenset(text(ref.get("name")) for ref in _mirrored(rule) if _is_service(ref, namespace)),
        headers=frozenset(text(header.get("name")).lower() for header in headers),
    )


def _mirrored(rule: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for each in mappings(rule.get("filters")):
        yield mapping(mapping(each.get("requestMirror")).get("backendRef"))


def _is_service(ref: Mapping[str, Any], namespace: Any) -> bool:
    """Whether a reference leads to a Service of the route's namespace; the Gateway API has defaults for all three."""
    return (
        bool(text(ref.get("name")))
        and ref.get("kind", SERVICE.name) == SERVICE.name
        and ref.get("group", SERVICE.group) == SERVICE.group
        and ref.get("namespace", namespace) == namespace
    )
