"""Any text in any field of the examples and of the cases of the CRD: refused by the name of the field, or read."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from conch.api.kinds import INFERENCE_SERVICE
from tests.api.operator import Operator, condition
from tests.api.server import Server, service
from tests.api.test_crd import CASES, at
from tests.api.test_text import TEXTS
from tests.cluster import Cluster
from tests.support.examples import FOLDER
from tests.support.kube import Kube, Object
from tests.support.wait import until

Place = tuple[str | int, ...]
NEVER_FREE = {("apiVersion",), ("kind",), ("metadata", "name")}


def texts_of(value: Any, place: Place = ()) -> Iterator[Place]:
    """Yield where a manifest has texts."""
    if isinstance(value, str):
        yield place
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from texts_of(inner, (*place, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from texts_of(inner, (*place, index))


def fields_of(bodies: Iterable[Object]) -> dict[Place, Object]:
    """Return where services have texts, and the last one that has a text there."""
    return {place: body for body in bodies for place in texts_of(body) if place not in NEVER_FREE}


def replaced(body: Object, place: Place, text: str) -> Object:
    """Return a manifest with another text at a place."""
    body = copy.deepcopy(body)
    inner: Any = body
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = text
    return body


def word_of(place: Place) -> str:
    """The name of the field, as a message would give it."""
    return str(next(key for key in reversed(place) if isinstance(key, str)))


@pytest.mark.timeout(600)  # about a thousand requests, then some hundred services
async def test_a_text_in_any_field_is_refused_by_the_fields_name_or_read(
    cluster: Cluster, kube: Kube, server: Server, namespace: str, log: Path
) -> None:
    examples = fields_of(yaml.safe_load(file.read_text()) for file in sorted(FOLDER.glob("*.yaml")))
    fields = fields_of(service(at(case["at"], case["taken"])) for case in CASES) | examples
    accepted: dict[str, Object] = {}
    for place, body in fields.items():
        for kind, text in TEXTS.items():
            name = f"text-{len(accepted)}"
            changed = replaced(replaced(body, place, text), ("metadata", "name"), name)
            kept = place in examples or kind == "plane"  # the operator reads a hundred of them in half a minute
            refusal = await server.refusal(changed, namespace=namespace, dry_run=not kept)
            if refusal:
                assert word_of(place) in refusal, (place, text, refusal)
            elif kept:
                accepted[name] = changed
    with Operator(cluster, log) as operator:

        def unread() -> set[str]:
            """Return the services whose present spec has no Ready condition with a reason."""
            found = kube.list(INFERENCE_SERVICE, namespace)
            return accepted.keys() - {each["metadata"]["name"] for each in found if is_read(each)}

        until(lambda: not unread(), "every service is read", 240, seen=lambda: [accepted[name] for name in unread()])
        assert "Traceback" not in operator.log()
        assert "status rejected" not in operator.log()


def is_read(body: Object) -> bool:
    """Whether the status is of the present spec and has a reason."""
    current = body.get("status", {}).get("observedGeneration") == body["metadata"]["generation"]
    return bool(current and condition(body, "Ready").get("reason"))
