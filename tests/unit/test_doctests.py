"""The examples in docstrings: `make test-unit` runs all of them, and each compares a result."""

from __future__ import annotations

import ast
import doctest
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
_PROMPT: Final = ">>> "
_FILES: Final = [
    file.relative_to(ROOT)
    for folder in ("operator", "serving-image", "tests")
    for file in sorted((ROOT / folder).rglob("*.py"))
    if _PROMPT in file.read_text()
]


def docstrings(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and the docstring of each definition of a file."""
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield getattr(node, "name", "the module"), ast.get_docstring(node) or ""


def test_every_example_is_in_a_folder_whose_examples_run() -> None:
    (folders,) = re.findall(r"^DOCTESTS := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for file in _FILES:
        if any(_PROMPT in text for _, text in docstrings(file)):
            assert any(file.is_relative_to(folder) for folder in folders.split()), file


@pytest.mark.parametrize("file", _FILES, ids=str)
def test_every_docstring_with_an_example_compares_a_result(file: Path) -> None:
    for name, text in docstrings(file):
        if _PROMPT in text:
            assert any(example.want for example in doctest.DocTestParser().get_examples(text)), name
