"""The API reference, generated from the CRD's schema: `python -m conch.api.reference` prints it."""

import sys
from collections.abc import Iterator
from typing import Final

from conch.api import names
from conch.api.cel import VALIDATIONS
from conch.api.crd import COLUMNS, schema
from conch.api.schema import Schema

_HEADER: Final = "<!-- Generated from operator/src/conch/api by `make generate`. Do not edit. -->\n"
_BOUNDS: Final = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "minLength": "not empty",
    "pattern": "matches `{}`",
}


def markdown() -> str:
    """Return the reference page."""
    root = schema()
    return "\n".join(
        (
            _HEADER,
            f"# {names.KIND}",
            "",
            f"`{names.API_VERSION}`, namespaced.",
            f"Short names `{names.SHORT_NAME}` and `{names.OWN_SHORT_NAME}`, category `{names.CATEGORY}`.",
            f"`kubectl get {names.SHORT_NAME}` shows {', '.join(column['name'] for column in COLUMNS)}.",
            "",
            "The API server refuses a manifest that breaks a rule below, with the message of the rule,",
            "also while the operator is down.",
            "",
            "## metadata",
            "",
            *(f"- {rule['message']}." for rule in root[VALIDATIONS]),
            "",
            "## spec",
            "",
            *_table("spec", root["properties"]["spec"], status=False),
            "",
            "## status",
            "",
            "Written by the operator only.",
            "",
            *_table("status", root["properties"]["status"], status=True),
            "",
        )
    )


def _table(path: str, node: Schema, *, status: bool) -> Iterator[str]:
    if status:
        yield "| Field | Type | Meaning |"
        yield "|---|---|---|"
    else:
        yield "| Field | Type | Default | Meaning |"
        yield "|---|---|---|---|"
    for name, child, required, same in _fields(path, node, {}):
        meaning = f"{child['description']} As `{same}`." if same else _meaning(child).replace("|", "\\|")
        cells = [f"`{name}`", _kind(child)]
        if not status:
            cells.append("**required**" if required else _default(child))
        yield f"| {' | '.join([*cells, meaning])} |"


def _fields(path: str, node: Schema, paths: dict[str, str]) -> Iterator[tuple[str, Schema, bool, str]]:
    """Yield path, schema, required and reference of each field, in the order of the types.

    `paths` has the path at which fields were documented first; a second path has a reference to it.
    """
    for name, child in _documented(node).items():
        place = f"{path}.{name}"
        below = child.get("items", child)
        fields = repr(below.get("properties"))
        same = paths.get(fields, "") if _documented(below) else ""
        yield place, child, name in node.get("required", ()), same
        if not same:
            paths[fields] = place
            yield from _fields(f"{place}[]" if "items" in child else place, below, paths)


def _documented(node: Schema) -> Schema:
    """Return the fields of a node without those of Kubernetes' types, which Kubernetes documents."""
    return {name: child for name, child in node.get("properties", {}).items() if "description" in child}


def _default(node: Schema) -> str:
    default = node.get("default")
    if default in (None, {}):
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _kind(node: Schema) -> str:
    if "type" not in node:
        return "quantity" if node.get("x-kubernetes-int-or-string") else "any"
    if "items" in node:
        return f"list of {_kind(node['items'])}"
    if "additionalProperties" in node:
        return f"map of {_kind(node['additionalProperties'])}"
    return str(node["type"])


def _meaning(node: Schema) -> str:
    """Return the description, the bounds and the rules of a field."""
    item = node.get("items", {})
    sentences = [node.get("description", "")]
    if "enum" in node:
        sentences.append(f"One of {', '.join(f'`{value}`' for value in node['enum'])}.")
    bounds = [
        text.format(node[key])
        for key, text in _BOUNDS.items()
        if key in node and "x-kubernetes-int-or-string" not in node
    ]
    if bounds:
        text = "; ".join(bounds)
        sentences.append(f"{text[0].upper()}{text[1:]}.")
    rules = [*node.get(VALIDATIONS, ()), *item.get(VALIDATIONS, ())]
    sentences += [f"<br>Refused: {rule['message']}." for rule in rules]
    return " ".join(filter(None, sentences))


if __name__ == "__main__":
    sys.stdout.write(markdown())
