"""Which service gets the requests of a hostname: the index beside a search through all routes."""

from __future__ import annotations

import random
from typing import Any

import pytest

from conch.api.kinds import HTTP_ROUTE, ServiceKey
from conch.observe.hostnames import Claim, Hostnames
from conch.observe.routes import read_age, read_attachments

Object = dict[str, Any]
SERVICES = [ServiceKey(namespace, f"s{number}") for namespace in ("a", "b") for number in range(4)]


def route_of(
    key: ServiceKey, created: int, claims: list[tuple[str, str, bool]], hostnames: list[str]
) -> dict[str, Any]:
    """Return a route; a claim is a Gateway, a section, and whether it is accepted."""
    parents = [
        {"name": gateway, "namespace": "infra"} | ({"sectionName": section} if section else {})
        for gateway, section, _ in claims
    ]
    conditions = [[{"type": "Accepted", "status": str(accepted)}] for _, _, accepted in claims]
    statuses = [{"parentRef": p, "conditions": c} for p, c in zip(parents, conditions, strict=True)]
    return {
        "apiVersion": HTTP_ROUTE.api_version,
        "kind": HTTP_ROUTE.name,
        "metadata": {**key._asdict(), "creationTimestamp": f"2026-01-01T00:00:{created:02}Z"},
        "spec": {"parentRefs": parents, "hostnames": hostnames},
        "status": {"parents": statuses},
    }


def search(routes: dict[ServiceKey, Object]) -> dict[ServiceKey, tuple[ServiceKey, Claim]]:
    """Return the conflict of each service that has one."""
    claims = {
        key: {Claim(a.gateway, a.section, name) for a in read_attachments(body) for name in body["spec"]["hostnames"]}
        for key, body in routes.items()
    }
    found = {}
    for key, body in routes.items():
        older = [
            (read_age(routes[other]), claim, other)
            for claim in claims[key]
            for other in routes
            if read_age(routes[other]) < read_age(body)
            for their in claims[other]
            if (their.gateway, their.hostname) == (claim.gateway, claim.hostname)
            and (not their.section or not claim.section or their.section == claim.section)
        ]
        if older:
            _, claim, other = min(older)
            found[key] = other, claim
    return found


@pytest.mark.parametrize("seed", range(200))
def test_the_index_finds_what_a_search_finds_and_names_all_whose_conflict_changes(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  a test's choices
    index, routes = Hostnames(), dict[ServiceKey, Object]()
    before = search(routes)
    for _ in range(60):
        key = chance.choice(SERVICES)
        if chance.random() < 0.3:
            routes.pop(key, None)
            index.discard_route(key)
        else:
            gateways = [
                (chance.choice("gh"), chance.choice(["", "x", "y"]), chance.random() < 0.8)
                for _ in range(chance.choice([1, 1, 2]))
            ]
            created = (
                int(routes[key]["metadata"]["creationTimestamp"][-3:-1]) if key in routes else chance.randrange(60)
            )
            routes[key] = route_of(key, created, gateways, chance.sample(["p", "q"], chance.choice([1, 2])))
            index.put_route(key, routes[key])
        after = search(routes)
        assert {key: found for key in SERVICES if (found := index.conflict(key)) is not None} == after
        changed = {each for each in SERVICES if before.get(each) != after.get(each)}
        assert changed - {key} <= index.take_affected()
        before = after
    for key in SERVICES:
        index.discard_route(key)
    assert not any(vars(index)[field] for field in ("_routes", "_ages", "_services")), "nothing is left"
