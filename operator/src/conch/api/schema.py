"""From pydantic's JSON schema to the structural OpenAPI v3 schema that a CRD wants.

Structural means: one type per node, no references, no null, and no type below anyOf
(https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/).
"""

from collections.abc import Mapping
from typing import Any, Final

from conch.api.cel import VALIDATIONS

Schema = dict[str, Any]

_INT_OR_STRING: Final = "x-kubernetes-int-or-string"
_PRESERVE: Final = "x-kubernetes-preserve-unknown-fields"
_KEPT: Final = (
    "description",
    "type",
    "format",
    "pattern",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "required",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
)


def structural(node: Mapping[str, Any], definitions: Mapping[str, Schema]) -> Schema:
    """Return the structural form of a node; `definitions` is what its references point into."""
    node = _flat(node, definitions)
    schema: Schema = {key: node[key] for key in _KEPT if key in node}
    if "const" in node:
        schema["enum"] = [node["const"]]
    if "description" in schema:
        schema["description"] = " ".join(schema["description"].split())
    if node.get(_INT_OR_STRING):
        schema.pop("type", None)
        schema |= {"anyOf": [{"type": "integer"}, {"type": "string"}], _INT_OR_STRING: True}
    if _is_open(node):
        schema[_PRESERVE] = True
    elif isinstance(node.get("additionalProperties"), dict):
        schema["additionalProperties"] = structural(node["additionalProperties"], definitions)
    if node.get("properties"):
        schema["properties"] = {name: structural(child, definitions) for name, child in node["properties"].items()}
    if "items" in node:
        schema["items"] = structural(node["items"], definitions)
    _default(schema, node)
    if node.get(VALIDATIONS):
        schema[VALIDATIONS] = node[VALIDATIONS]
    return schema


def without_defaults(schema: Schema) -> Schema:
    """Return the schema without its defaults: a status says what was seen, not what could be."""
    bare = {key: value for key, value in schema.items() if key != "default"}
    if "properties" in bare:
        bare["properties"] = {name: without_defaults(child) for name, child in bare["properties"].items()}
    if "items" in bare:
        bare["items"] = without_defaults(bare["items"])
    return bare


def _flat(node: Mapping[str, Any], definitions: Mapping[str, Schema]) -> Schema:
    """Follow the reference and drop the null of an optional field; what stands at the field wins."""
    flat = dict(node)
    rules = list(flat.pop(VALIDATIONS, []))
    choices = [choice for choice in flat.pop("anyOf", []) if choice != {"type": "null"}]
    # An int-or-string keeps its two types elsewhere.
    below = choices[0] if len(choices) == 1 else {}
    if "$ref" in flat:
        below = definitions[flat.pop("$ref").rpartition("/")[2]]
    if not below:
        return flat | {VALIDATIONS: rules}
    inner = _flat(below, definitions)
    rules = [*inner.pop(VALIDATIONS, []), *rules]
    return inner | flat | {VALIDATIONS: rules}


def _is_open(node: Mapping[str, Any]) -> bool:
    return bool(node.get(_PRESERVE)) or node.get("additionalProperties") is True


def _default(schema: Schema, node: Mapping[str, Any]) -> None:
    """Set the default where it says something.

    An object whose fields have defaults gets {}, so that the API server fills those in; empty lists, maps
    and strings are the same as absent and would only clutter what the user reads back.
    """
    default = node.get("default")
    if isinstance(default, dict):
        if any("default" in child for child in schema.get("properties", {}).values()):
            schema["default"] = {}
    elif default not in (None, "", []):
        schema["default"] = default
