"""Variables of the container's environment in which a cloud names the identity of the pod's service account."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from typing import TypeVar
from urllib.parse import urlsplit

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.secret_settings import Endpoint, WrongFormError, format_value, parse_endpoint
from conch_contract.addresses import Address, is_loopback, parse_address

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


def parse_node_url(text: str, addresses: Collection[Address], what: str) -> tuple[Endpoint, str]:
    """Return a server of the pod's node, which is reached without leaving it, and path and query of the URL.

    Args:
        text: A URL with http://, and an address as its host.
        addresses: The addresses that the server may have beside those of loopback.
        what: What the server is, such as `EKS's agent`.

    Raises:
        WrongFormError: It is no such URL.
    """
    url, mark, query = text.partition("?")
    endpoint = parse_endpoint(url, "")
    address = parse_address(endpoint.host)
    if endpoint.is_secure or not (address in addresses or is_loopback(address)):
        message = f"is {format_value(text)}, which is no URL of {what}, such as http://{min(map(str, addresses))}"
        raise WrongFormError(message)
    if not re.fullmatch(r"[!-~]*", query) or "#" in query:
        message = f"is {format_value(text)}, whose query holds '#', a blank or a character that is not ASCII"
        raise WrongFormError(message)
    parts = urlsplit(url)
    return Endpoint(f"http://{parts.netloc}", endpoint.host, endpoint.port), f"{parts.path}{mark}{query}"
