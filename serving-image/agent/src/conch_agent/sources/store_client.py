"""What a kind of object store differs in, and the options that the clients have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

import obstore

from conch_agent.reasons import Failure
from conch_agent.sources.network import NetworkSettings
from conch_agent.sources.secret_settings import Endpoint
from conch_agent.sources.store_errors import StoreTerms

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta
    from obstore.store import ObjectStore, RetryConfig

# The proxy ends a request that stalls, earlier than these do: neither may end a request that is only slow.
_SECONDS: Final = "300s"
_LONGEST: Final = "86400s"
NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class Bucket(Protocol):
    """A bucket of one kind of store, with the settings of the storage Secret."""

    @property
    def name(self) -> str:
        """The bucket's name."""

    @property
    def terms(self) -> StoreTerms:
        """Codes and names of its kind of store."""

    @property
    def endpoint(self) -> Endpoint | None:
        """The store's address in the Secret; None: `default_endpoint`."""

    @property
    def default_endpoint(self) -> Endpoint:
        """The address of the provider's own store."""

    @property
    def network(self) -> NetworkSettings:
        """Certificates to trust for the endpoint, and proxies."""

    @property
    def is_signed(self) -> bool:
        """True if requests have credentials."""

    @property
    def signs_urls(self) -> bool:
        """True if its client makes signed URLs without requests of its own."""

    @property
    def read_headers(self) -> Mapping[str, str]:
        """Headers with which objects arrive as they are stored."""

    @property
    def unknown(self) -> tuple[str, ...]:
        """The Secret's keys that set nothing."""

    def open(self, endpoint: str, proxy: str, on_failure: Callable[[Failure], None]) -> ObjectStore:
        """Return the client.

        Args:
            endpoint: The store's URL, as http://: the proxy has the TLS.
            proxy: The URL of the proxy on loopback for all its connections.
            on_failure: Called with the failure of a request for a token, after which the client raises its own error.
        """


def build_options(proxy: str) -> dict[str, Any]:
    """Return the client's options for HTTP. Its requests go to the proxy, which limits their time.

    Args:
        proxy: The URL of the proxy on loopback for all its connections.
    """
    return {"proxy_url": proxy, "allow_http": True, "read_timeout": _SECONDS, "timeout": _LONGEST}


def build_retries() -> RetryConfig:
    """Return the client's retries of a request: two within 20 s."""
    return {
        "max_retries": 2,
        "retry_timeout": timedelta(seconds=20),
        "backoff": {
            "init_backoff": timedelta(milliseconds=100),
            "max_backoff": timedelta(seconds=1),
            "base": 2,
        },
    }


async def read_meta(store: ObjectStore, key: str, version: str = "") -> ObjectMeta:
    """Return the metadata of an object, with its version, which a list request does not return.

    Args:
        store: The client.
        key: The key of the object.
        version: The version; empty: the current one.
    """
    options: GetOptions = {"head": True}
    if version:
        options["version"] = version
    answer = await obstore.get_async(store, key, options=options)
    return answer.meta


def build_tag(meta: ObjectMeta) -> str:
    """Return the tag of an object, which changes with its content.

    Args:
        meta: Its metadata.
    """
    return meta["e_tag"] or str(meta["last_modified"])


def is_same_tag(one: str, other: str) -> bool:
    """Compare tags. A list may have them without the quotes of the header.

    Args:
        one: A tag.
        other: Another one.

    >>> is_same_tag('"a"', "a"), is_same_tag("a", "b")
    (True, False)
    """
    return one.strip('"') == other.strip('"')


def quote_tag(tag: str) -> str:
    """Return a tag as the header If-Match has it (RFC 9110, section 8.8.3). Lists of Azure have it without quotes.

    Args:
        tag: The tag; empty: there is none.

    >>> quote_tag("a"), quote_tag('"a"'), quote_tag("")
    ('"a"', '"a"', '')
    """
    return tag if not tag or tag.endswith('"') else f'"{tag}"'
