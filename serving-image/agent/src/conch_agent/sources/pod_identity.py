"""Variables of the container's environment in which a cloud names the identity of the pod's service account."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.secret_settings import WrongFormError

T = TypeVar("T")


def has_variables(*names: str) -> bool:
    """Return True if all variables have a value: a cloud sets some without one for an account without an identity.

    Args:
        names: Their names.
    """
    return all(os.environ.get(name, "").strip() for name in names)


def read_variable(name: str, parse: Callable[[str], T], remedy: str) -> T:
    """Return the value of a variable.

    Args:
        name: Its name; it has a value.
        parse: The parser of its text.
        remedy: What to do about a wrong one, a sentence without its full stop.

    Raises:
        Failure: AccessDenied: the value has another form.
    """
    try:
        return parse(os.environ[name].strip())
    except WrongFormError as error:
        message = f"{name} in the environment of the pod {error}. {remedy}, and start the pod anew."
        raise Failure(Reason.ACCESS_DENIED, message) from None
