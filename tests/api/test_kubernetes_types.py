"""Kubernetes' own types in the CRD are those that the API server of the tests publishes.

`GOLDEN=write pytest tests/api/test_kubernetes_types.py` writes the file anew; `make generate` then makes the CRD of it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conch.api import kubernetes
from tests.support.kube import Kube

API = Path(kubernetes.__file__).parent
GROUPS = {"core.v1": "api/v1", "autoscaling.v2": "apis/autoscaling/v2"}
_TYPE = re.compile(rf'"((?:{"|".join(map(re.escape, GROUPS))})\.\w+)"')


def test_the_types_are_those_that_the_api_server_publishes(kube: Kube) -> None:
    published: dict[str, Any] = {}
    for path in GROUPS.values():
        published |= json.loads(kube.run("get", "--raw", f"/openapi/v3/{path}"))["components"]["schemas"]
    used = {name for path in API.glob("*.py") for name in _TYPE.findall(path.read_text())}
    wanted = closure(published, {f"io.k8s.api.{name}" for name in used})
    if os.environ.get("GOLDEN") == "write":
        (API / "kubernetes.json").write_text(json.dumps(wanted, indent=1, sort_keys=True) + "\n")
    assert kubernetes.load_types() == wanted


def closure(published: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The types of these names and all that they refer to, without descriptions."""
    found: dict[str, Any] = {}
    while names:
        name = names.pop()
        found[name] = plain(published[name])
        names |= set(references(found[name])) - found.keys()
    return found


def plain(node: Any) -> Any:
    """A schema without its descriptions."""
    if isinstance(node, list):
        return [plain(item) for item in node]
    if isinstance(node, dict):
        return {key: plain(item) for key, item in node.items() if key != "description" or isinstance(item, dict)}
    return node


def references(node: Any) -> Iterator[str]:
    """The names of the types that a schema refers to."""
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"].rpartition("/")[2]
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from references(item)
