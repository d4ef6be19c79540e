"""Quantities are read, compared and written as Kubernetes does it: the examples of the module hold."""

import doctest

from conch.api import quantity


def test_the_examples_of_the_module_hold() -> None:
    done = doctest.testmod(quantity)
    assert (done.failed, done.attempted) == (0, 4)
