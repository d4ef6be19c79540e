"""Field managers of server-side apply, as metadata.managedFields records them."""

import json
from collections.abc import Mapping
from typing import Any

from conch.observe.compare import Place
from conch.observe.fields import mapping, mappings, text


def find_managers(metadata: Mapping[str, Any], place: Place) -> tuple[str, ...]:
    """Return the field managers that own a field, or an atomic part of the object that contains it, by name.

    The place () is the whole object: all field managers, except those of its status alone.
    """
    entries = [entry for entry in mappings(metadata.get("managedFields")) if entry.get("subresource") != "status"]
    return tuple(sorted({text(entry.get("manager")) for entry in entries if _owns(entry.get("fieldsV1"), place)}))


def _owns(owned: Any, place: Place) -> bool:
    for part in place:
        below = mapping(owned).get(part)
        if below is None:
            return False
        if not below:
            return True
        owned = below
    return True


def spell(place: Place) -> str:
    """Return a field in the notation of the API server's messages.

    >>> spell(("f:spec", "f:ports", 'k:{"port":80,"protocol":"TCP"}', "f:name"))
    '.spec.ports[port=80,protocol="TCP"].name'
    >>> spell(("f:metadata", "f:annotations", "f:conch.dev/stable"))
    '.metadata.annotations[conch.dev/stable]'
    """
    return "".join(_spell_part(part[0], part[2:]) for part in place)


def _spell_part(kind: str, name: str) -> str:
    if kind == "k":
        return f"[{','.join(f'{key}={json.dumps(value)}' for key, value in json.loads(name).items())}]"
    return f"[{name}]" if not name.isidentifier() else f".{name}"
