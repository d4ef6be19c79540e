"""Kubernetes' own types as parts of our schema: what is misspelt or mistyped in them is refused at apply.

`kubernetes.json` holds what an API server publishes of these types (/openapi/v3), without its descriptions.
tests/api/test_kubernetes_types.py compares it with a running API server, and rewrites it for another version.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Final

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from conch.api._base import SCALAR

Node = dict[str, Any]

_REFERENCE: Final = "$ref"
_QUANTITY: Final = "io.k8s.apimachinery.pkg.api.resource.Quantity"
# As Kubernetes generates it for resource.Quantity. A number may be a fraction, which int-or-string does not take.
_QUANTITY_PATTERN: Final = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)
_INT_OR_STRING: Final[Node] = {"x-kubernetes-int-or-string": True}
_NEEDED: Final = {"string", "array"}
# The API server holds the numbers of a CRD to 64 bits, whatever their format says.
_INT32: Final[Node] = {"minimum": -(2**31), "maximum": 2**31 - 1}


@cache
def published() -> Mapping[str, Node]:
    """Return the types by the names under which the API server publishes them."""
    types: Mapping[str, Node] = json.loads((files("conch.api") / "kubernetes.json").read_text())
    return types


@dataclass(frozen=True)
class OfKubernetes:
    """Give the value that it annotates the schema of a type of Kubernetes, such as core.v1.Affinity."""

    type: str

    def __get_pydantic_json_schema__(self, _core: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the schema of the type."""
        return schema_of(self.type)


def with_fields_of(kind: str) -> Callable[[Node], None]:
    """Return what a model puts in `json_schema_extra` for the fields of a type besides those that it declares."""

    def add(schema: Node) -> None:
        schema.pop("additionalProperties", None)
        own = schema["properties"]
        schema["properties"] = {**own, **schema_of(kind)["properties"], **own}  # ours come first, and win

    return add


def schema_of(kind: str) -> Node:
    """Return the schema of a type, without references: `core.v1.EnvVar` is io.k8s.api.core.v1.EnvVar."""
    return _resolved({_REFERENCE: f"io.k8s.api.{kind}"})


def _resolved(node: Mapping[str, Any]) -> Node:
    """Follow all references. Defaults go: what a user reads back is what the user wrote."""
    if _REFERENCE in node:
        name = node[_REFERENCE].rpartition("/")[2]
        if name == _QUANTITY:
            return {**SCALAR, "pattern": _QUANTITY_PATTERN}
        return _resolved(published()[name])
    if node.get("format") == "int-or-string":
        return dict(_INT_OR_STRING)
    found: Node = dict(_INT32) if node.get("format") == "int32" else {}
    for part in node.get("allOf", ()):
        found |= _resolved(part)
    found |= {key: value for key, value in node.items() if key not in ("allOf", "default", "properties")}
    if "properties" in node:
        found["properties"] = {name: _resolved(child) for name, child in node["properties"].items()}
    if "enum" in node:
        found["enum"] = ["", *node["enum"]]  # as absent
    if "required" in node:
        # A number or an object that is absent is 0 or empty, which Kubernetes often takes.
        required = [name for name in found.pop("required") if found["properties"][name].get("type") in _NEEDED]
        found |= {"required": required} if required else {}
    for key in ("items", "additionalProperties"):
        if isinstance(found.get(key), dict):
            found[key] = _resolved(found[key])
    return found


Affinity = Annotated[dict[str, Any], OfKubernetes("core.v1.Affinity")]
Toleration = Annotated[dict[str, Any], OfKubernetes("core.v1.Toleration")]
TopologySpreadConstraint = Annotated[dict[str, Any], OfKubernetes("core.v1.TopologySpreadConstraint")]
ResourceMetricSource = Annotated[dict[str, Any], OfKubernetes("autoscaling.v2.ResourceMetricSource")]
ContainerResourceMetricSource = Annotated[dict[str, Any], OfKubernetes("autoscaling.v2.ContainerResourceMetricSource")]
PodsMetricSource = Annotated[dict[str, Any], OfKubernetes("autoscaling.v2.PodsMetricSource")]
ObjectMetricSource = Annotated[dict[str, Any], OfKubernetes("autoscaling.v2.ObjectMetricSource")]
ExternalMetricSource = Annotated[dict[str, Any], OfKubernetes("autoscaling.v2.ExternalMetricSource")]
HPAScalingRules = Annotated[dict[str, Any], OfKubernetes("autoscaling.v2.HPAScalingRules")]
