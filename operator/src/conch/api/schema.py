"""Conversion of pydantic's JSON schema to the structural OpenAPI v3 schema of a CRD.

Structural means: one type per node, no references, no null, and no type below anyOf
(https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/).
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from conch.api.cel import VALIDATIONS

Schema = dict[str, Any]

_INT_OR_STRING: Final = "x-kubernetes-int-or-string"
_PRESERVE: Final = "x-kubernetes-preserve-unknown-fields"
_FIELDS: Final = (
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


def build_structural_schema(node: Mapping[str, Any], definitions: Mapping[str, Schema]) -> Schema:
    """Return the structural schema of a node. `definitions` has the targets of its references by name."""
    node = _flatten(node, definitions)
    schema: Schema = {key: node[key] for key in _FIELDS if key in node}
    if "const" in node:
        schema["enum"] = [node["const"]]
    if "description" in schema:
        schema["description"] = " ".join(schema["description"].split())
    if node.get(_INT_OR_STRING):
        schema.pop("type", None)
        schema[_INT_OR_STRING] = True  # the API server takes both types; an anyOf would state them again
    if schema.get("minLength") == 1 and "pattern" in schema and not re.search(schema["pattern"], ""):
        del schema["minLength"]  # the pattern refuses an empty text
    if _is_open(node):
        schema[_PRESERVE] = True
    elif isinstance(node.get("additionalProperties"), dict):
        schema["additionalProperties"] = build_structural_schema(node["additionalProperties"], definitions)
    if node.get("properties"):
        schema["properties"] = {
            name: build_structural_schema(child, definitions) for name, child in node["properties"].items()
        }
    if "items" in node:
        schema["items"] = build_structural_schema(node["items"], definitions)
    _default(schema, node)
    if node.get(VALIDATIONS):
        schema[VALIDATIONS] = node[VALIDATIONS]
    return schema


def remove_keyword(schema: Schema, keyword: str) -> Schema:
    """Return the schema without a keyword, at every depth."""
    bare = {key: value for key, value in schema.items() if key != keyword}
    if "properties" in bare:
        bare["properties"] = {name: remove_keyword(child, keyword) for name, child in bare["properties"].items()}
    for below in ("items", "additionalProperties"):
        if below in bare:
            bare[below] = remove_keyword(bare[below], keyword)
    return bare


def _flatten(node: Mapping[str, Any], definitions: Mapping[str, Schema]) -> Schema:
    """Replace the reference of a field by its type, with the field's own values; remove null from optional fields."""
    flat = dict(node)
    rules = list(flat.pop(VALIDATIONS, []))
    choices = [choice for choice in flat.pop("anyOf", []) if choice != {"type": "null"}]
    # An int-or-string keeps its two types elsewhere.
    below = choices[0] if len(choices) == 1 else {}
    if "$ref" in flat:
        below = definitions[flat.pop("$ref").rpartition("/")[2]]
    if not below:
        return flat | {VALIDATIONS: rules}
    inner = _flatten(below, definitions)
    rules = [*inner.pop(VALIDATIONS, []), *rules]
    return inner | flat | {VALIDATIONS: rules}


def _is_open(node: Mapping[str, Any]) -> bool:
    return bool(node.get(_PRESERVE)) or node.get("additionalProperties") is True


def _default(schema: Schema, node: Mapping[str, Any]) -> None:
    """Set the default of a field, unless it is empty.

    An object whose fields have defaults gets {}, so that the API server sets those. Empty lists, maps and strings are
    the same as absent, and would clutter the object that the user reads back.
    """
    default = node.get("default")
    if isinstance(default, dict):
        if any("default" in child for child in schema.get("properties", {}).values()):
            schema["default"] = {}
    elif default not in (None, "", []):
        schema["default"] = default
