"""The reference of formats and storage, from the contract's tables: `python -m conch.api.model_reference` prints it."""

import sys
from collections.abc import Iterable, Iterator
from typing import Final

from conch_contract.formats import FORMATS
from conch_contract.schemes import SCHEMES

_HEADER: Final = "<!-- Generated from serving-image/contract/src/conch_contract by `make generate`. Do not edit. -->\n"
_BAR: Final = r"\|"  # in a cell of a table


def markdown() -> str:
    """Return the reference page."""
    return "\n".join(
        (
            _HEADER,
            "# Formats and storage",
            "",
            "What the [serving image](../serving-image.md) can read. The rules that the API server enforces are in",
            "[InferenceService](inferenceservice.md).",
            "",
            "## Formats",
            "",
            "The values of `spec.predictor.model.modelFormat.name`.",
            "",
            *_table(
                ("format", "files in a version folder", "backend", "inputs and outputs", "`config.pbtxt`"), _formats()
            ),
            "",
            "## Storage",
            "",
            "The schemes of `spec.predictor.model.storageUri`.",
            "",
            *_table(("URI", "files", "an interrupted fetch goes on", "`storage.secretRef`"), _schemes()),
            "",
            *_secrets(),
        )
    )


def _formats() -> Iterator[tuple[str, ...]]:
    for row in FORMATS.values():
        backend = f"`{row.backend}`" if row.backend else "that of `config.pbtxt`"
        fields = "known fields, none that runs a program" if row.is_data else "all fields; the model is a program"
        yield f"`{row.name}`", row.files, backend, row.tensors, fields


def _schemes() -> Iterator[tuple[str, ...]]:
    for scheme in SCHEMES.values():
        uris = [f"`{scheme.example}`", *(f"`{name}://`" for name in scheme.names if name != scheme.name)]
        yield ", ".join(uris), scheme.files, scheme.resumption, "yes" if scheme.secret_keys else "no"


def _secrets() -> Iterator[str]:
    """Yield a section for each scheme that takes a Secret."""
    for scheme in SCHEMES.values():
        if scheme.secret_keys:
            yield f"## The storage Secret of {scheme.name}"
            yield ""
            yield from _table(("key", "meaning"), ((f"`{key.name}`", key.meaning) for key in scheme.secret_keys))
            yield ""


def _table(columns: Iterable[str], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    head = tuple(columns)
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', _BAR) for cell in row)} |"


if __name__ == "__main__":
    sys.stdout.write(markdown())
