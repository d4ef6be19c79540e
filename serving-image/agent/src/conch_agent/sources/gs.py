"""`gs://bucket/prefix`: files in Google Cloud Storage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from obstore.exceptions import BaseError
from obstore.store import GCSStore

from conch_agent.reasons import Failure
from conch_agent.sources.base import Location
from conch_agent.sources.gs_errors import POD_TERMS, TERMS
from conch_agent.sources.gs_settings import ACCOUNT_KEY, KEYS, WRITE_ACCOUNT_KEY, AccountKey, GsSettings, parse_settings
from conch_agent.sources.gs_token import MetadataTokens, find_server
from conch_agent.sources.network import NetworkSettings
from conch_agent.sources.object_store import ObjectStoreSource, parse_bucket
from conch_agent.sources.renewal import Renewal
from conch_agent.sources.secret_settings import Endpoint
from conch_agent.sources.storage_secret import build_invalid_secret
from conch_agent.sources.store_client import build_options, build_retries
from conch_agent.sources.store_errors import StoreTerms

if TYPE_CHECKING:
    from obstore.store import GCSCredential

__all__ = ["KEYS", "GsSource", "open_source"]

_ENDPOINT: Final = Endpoint("https://storage.googleapis.com", "storage.googleapis.com", 443)
# Without the header the store decompresses objects of Content-Encoding gzip, and then has neither their size nor ranges
# (https://cloud.google.com/storage/docs/transcoding).
_READ_HEADERS: Final[Mapping[str, str]] = MappingProxyType({"accept-encoding": "gzip"})


def open_source(location: Location) -> GsSource:
    """Return the source of a bucket and prefix.

    Args:
        location: The location.

    Raises:
        Failure: The bucket or a value of the Secret is invalid.
    """
    return GsSource(location.uri, location.secret)


class GsSource(ObjectStoreSource):
    """`gs://bucket/prefix`: all objects below the prefix, or the one object of that key."""

    def __init__(self, uri: str, secret: Mapping[str, str]) -> None:
        """Create the source.

        Args:
            uri: The storageUri.
            secret: Values of the storage Secret by key.

        Raises:
            Failure: The bucket or a value of the Secret is invalid.
        """
        super().__init__(uri, urlsplit(uri).path, _GsBucket(uri, parse_settings(secret)))


class _GsBucket:
    """A bucket of Google Cloud Storage, as in Bucket."""

    def __init__(self, uri: str, settings: GsSettings) -> None:
        self.name = name = parse_bucket(uri)
        self.terms: StoreTerms = TERMS
        self.endpoint = settings.endpoint
        self.default_endpoint = _ENDPOINT
        self.network: NetworkSettings = settings
        self._renewal: Renewal[GCSCredential] | None = None
        if settings.pod_identity and settings.account_key is None:
            server = find_server()
            self._renewal, self.terms = Renewal(server, MetadataTokens(uri, server).request), POD_TERMS
        self.is_signed = settings.account_key is not None or self._renewal is not None
        self.signs_urls = settings.account_key is not None
        self.read_headers = _READ_HEADERS
        self.unknown = settings.unknown
        self._settings = settings
        _check_private_key(name, settings.account_key)

    def open(self, endpoint: str, proxy: str, on_failure: Callable[[Failure], None]) -> GCSStore:
        """Return the client, as in Bucket."""
        key = self._settings.account_key
        # Without a key and this switch the client would request a token from the cloud's metadata server.
        config: dict[str, Any] = {"base_url": endpoint, "skip_signature": not self.is_signed}
        if key:
            config["service_account_key"] = key.to_json()
        elif not self._renewal:
            config["bearer_token"] = ""  # otherwise the client looks for credentials in files of the container
        options = build_options(proxy)
        options["default_headers"] = dict(_READ_HEADERS)
        return GCSStore(
            self.name,
            config=config,  # type: ignore[arg-type]
            client_options=options,  # type: ignore[arg-type]
            retry_config=build_retries(),
            credential_provider=self._renewal.build_provider(on_failure) if self._renewal else None,
        )


def _check_private_key(bucket: str, key: AccountKey | None) -> None:
    """Refuse a private key that the client cannot read, which it does when it is made."""
    if key is None:
        return
    try:
        GCSStore(bucket, config={"service_account_key": key.to_json()})
    except BaseError:
        raise build_invalid_secret(ACCOUNT_KEY, "has a private_key that is no RSA key", WRITE_ACCOUNT_KEY) from None
