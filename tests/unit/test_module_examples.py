"""The examples in docstrings of modules that others stand on hold."""

import doctest
from types import ModuleType

import pytest

from conch import plain_yaml
from conch.api import quantity


@pytest.mark.parametrize(("module", "examples"), [(quantity, 4), (plain_yaml, 2)], ids=["quantity", "plain_yaml"])
def test_the_examples_of_a_module_hold(module: ModuleType, examples: int) -> None:
    assert doctest.testmod(module) == (0, examples)
