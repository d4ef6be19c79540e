"""The text of what commands print of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from conch.cli.printing import Table, Text
from conch_contract.sentences import join_some

_FIELDS: Final = ("source", "version", "created", "author", "notes", "digest", "size", "signed", "signer", "uri")


def build_text(value: Mapping[str, Any]) -> Text:
    """Return the text of a content: its fields, what has changed, and a table of files.

    Args:
        value: The value that -o json prints.
    """
    lines = [f"{name.title()}: {_format(value[name])}" for name in _FIELDS if value.get(name) not in {None, ""}]
    if changed := value.get("changed"):
        lines.append(f"Changed since the manifest was written: {join_some(changed)}")
    if verified := value.get("verified"):
        lines.append(f"Verified: {join_some(verified)}")
    if "sent" in value:
        lines.append(f"Sent: {len(value['sent'])} files; the target had {len(value['present'])}")
    rows = tuple(
        (file["path"], "-" if file["size"] is None else str(file["size"]), _read_digest(file))
        for file in value["files"]
    )
    return [*lines, Table(("FILE", "BYTES", "SHA-256"), rows)]


def _format(value: Any) -> str:
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _read_digest(file: Mapping[str, Any]) -> str:
    return str(file.get("sha256") or file.get("digest") or "-").removeprefix("sha256:")
