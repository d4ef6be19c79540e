"""The texts of a model: those that users write, and those that commands print, which control no terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from conch.cli.printing import Table, Text
from conch_contract.sentences import join_some

_FIELDS: Final = ("source", "version", "created", "author", "notes", "digest", "size", "signed", "signer", "uri")
LONGEST_TEXT: Final = 4096  # characters of a version, an author or notes


class Words(click.ParamType[str]):
    """A text of the manifest, which may have line breaks and no other control characters."""

    name = "TEXT"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text. An invalid one is an error with what was expected."""
        if len(value) > LONGEST_TEXT:
            self.fail(f"the text has {len(value)} characters; write at most {LONGEST_TEXT}", param, ctx)
        if not all(letter.isprintable() or letter in "\t\r\n" for letter in value):
            self.fail(f"{value[:80]!r} has a control character, or is not UTF-8; write printable text", param, ctx)
        return value


def build_text(value: Mapping[str, Any]) -> Text:
    """Return the text of a content: its fields, what has changed, and a table of files.

    Args:
        value: The value that -o json prints.
    """
    lines = [f"{name.title()}: {_format(value[name])}" for name in _FIELDS if value.get(name) not in {None, ""}]
    if changed := value.get("changed"):
        lines.append(f"Changed since the manifest was written: {_clean(join_some(changed))}")
    if verified := value.get("verified"):
        lines.append(f"Verified: {join_some(verified)}")
    if "sent" in value:
        lines.append(f"Sent: {len(value['sent'])} files; the target had {len(value['present'])}")
    rows = tuple(
        (_clean(file["path"]), "-" if file["size"] is None else str(file["size"]), _read_digest(file))
        for file in value["files"]
    )
    return [*lines, Table(("FILE", "BYTES", "SHA-256"), rows)]


def _format(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else _clean(str(value))


def _clean(text: str) -> str:
    r"""Return a text as one line without characters that control a terminal.

    >>> _clean("data of\nOctober \x1b[31m")
    'data of October ?[31m'
    """
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))


def _read_digest(file: Mapping[str, Any]) -> str:
    return str(file.get("sha256") or file.get("digest") or "-").removeprefix("sha256:")
