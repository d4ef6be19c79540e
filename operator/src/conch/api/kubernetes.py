"""Types of Kubernetes as parts of the CRD's schema, so that the API server refuses unknown and mistyped fields.

`kubernetes.json` holds the schemas of these types as an API server publishes them (/openapi/v3), without descriptions.
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
# An absent x-kubernetes-list-type is atomic, as most lists of Kubernetes are; the schema has 140 of them.
_ATOMIC_LIST: Final = ("x-kubernetes-list-type", "atomic")
# The drivers of pod volumes that the API server still takes, and no kubelet mounts any more (all before 1.30).
_REMOVED_DRIVERS: Final = frozenset({"flocker", "glusterfs", "photonPersistentDisk", "quobyte", "scaleIO", "storageos"})
# The API server holds the numbers of a CRD to 64 bits, whatever their format.
_INT32: Final[Node] = {"minimum": -(2**31), "maximum": 2**31 - 1}


@cache
def load_types() -> Mapping[str, Node]:
    """Return the schemas of Kubernetes' types by their names at the API server."""
    types: Mapping[str, Node] = json.loads((files("conch.api") / "kubernetes.json").read_text())
    return types


@dataclass(frozen=True)
class KubernetesType:
    """An annotation: the field has the schema of a type of Kubernetes, such as core.v1.Affinity."""

    type: str

    def __get_pydantic_json_schema__(self, _core: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the schema of the type."""
        return schema_of(self.type)


def with_fields_of(kind: str) -> Callable[[Node], None]:
    """Return the `json_schema_extra` of a model that has the fields of a type besides those that it declares."""

    def add(schema: Node) -> None:
        schema.pop("additionalProperties", None)
        own = schema["properties"]
        theirs = {name: node for name, node in schema_of(kind)["properties"].items() if name not in _REMOVED_DRIVERS}
        schema["properties"] = {**own, **theirs, **own}  # ours come first, and win

    return add


def schema_of(kind: str) -> Node:
    """Return the schema of a type, without references: `core.v1.EnvVar` is io.k8s.api.core.v1.EnvVar."""
    return _resolve({_REFERENCE: f"io.k8s.api.{kind}"})


def _resolve(node: Mapping[str, Any]) -> Node:
    """Replace all references by their types and remove defaults, so that users read back what they wrote."""
    if _REFERENCE in node:
        name = node[_REFERENCE].rpartition("/")[2]
        if name == _QUANTITY:
            return {**SCALAR, "pattern": _QUANTITY_PATTERN}
        return _resolve(load_types()[name])
    if node.get("format") == "int-or-string":
        return dict(_INT_OR_STRING)
    is_int32 = node.get("format") == "int32"
    found: Node = dict(_INT32) if is_int32 else {}
    for part in node.get("allOf", ()):
        found |= _resolve(part)
    dropped = {"allOf", "default", "properties", *(("format",) if is_int32 else ())}  # its bounds are exact
    kept = {key: value for key, value in node.items() if key not in dropped}
    found |= dict(item for item in kept.items() if item != _ATOMIC_LIST)
    if "properties" in node:
        found["properties"] = {name: _resolve(child) for name, child in node["properties"].items()}
    if "enum" in node:
        found["enum"] = ["", *node["enum"]]  # empty: the same as absent
    if "required" in node:
        # Kubernetes treats an absent number as 0 and an absent object as empty, and often accepts that.
        required = [name for name in found.pop("required") if found["properties"][name].get("type") in _NEEDED]
        found |= {"required": required} if required else {}
    for key in ("items", "additionalProperties"):
        if isinstance(found.get(key), dict):
            found[key] = _resolve(found[key])
    return found


Affinity = Annotated[dict[str, Any], KubernetesType("core.v1.Affinity")]
Toleration = Annotated[dict[str, Any], KubernetesType("core.v1.Toleration")]
TopologySpreadConstraint = Annotated[dict[str, Any], KubernetesType("core.v1.TopologySpreadConstraint")]
ResourceMetricSource = Annotated[dict[str, Any], KubernetesType("autoscaling.v2.ResourceMetricSource")]
ContainerResourceMetricSource = Annotated[
    dict[str, Any], KubernetesType("autoscaling.v2.ContainerResourceMetricSource")
]
PodsMetricSource = Annotated[dict[str, Any], KubernetesType("autoscaling.v2.PodsMetricSource")]
ObjectMetricSource = Annotated[dict[str, Any], KubernetesType("autoscaling.v2.ObjectMetricSource")]
ExternalMetricSource = Annotated[dict[str, Any], KubernetesType("autoscaling.v2.ExternalMetricSource")]
HPAScalingRules = Annotated[dict[str, Any], KubernetesType("autoscaling.v2.HPAScalingRules")]
