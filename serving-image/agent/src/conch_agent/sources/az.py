"""`az://account/container/prefix`: files in Azure Blob Storage."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from obstore.store import AzureStore

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.az_credentials import AccountKey, Credential, FederatedIdentity, Sas, ServicePrincipal
from conch_agent.sources.az_errors import find_terms
from conch_agent.sources.az_settings import IDENTITY, KEYS, AzSettings, parse_settings
from conch_agent.sources.az_token import TokenSource
from conch_agent.sources.base import Location
from conch_agent.sources.network import NetworkSettings
from conch_agent.sources.object_store import ObjectStoreSource
from conch_agent.sources.pod_identity import has_variables
from conch_agent.sources.renewal import Renewal
from conch_agent.sources.secret_settings import Endpoint
from conch_agent.sources.store_client import NO_HEADERS, build_options, build_retries

if TYPE_CHECKING:
    from obstore.store import AzureBearerToken

__all__ = ["KEYS", "AzSource", "open_source"]

_FORM: Final = "az://account/container/prefix"
_ACCOUNT: Final = re.compile(r"[a-z0-9]{3,24}")
_CONTAINER: Final = re.compile(r"[$a-z0-9][a-z0-9-]{1,61}[a-z0-9]")


def open_source(location: Location) -> AzSource:
    """Return the source of a container and prefix.

    Args:
        location: The location.

    Raises:
        Failure: The account, the container or a value of the Secret is invalid.
    """
    return AzSource(location.uri, location.secret)


class AzSource(ObjectStoreSource):
    """`az://account/container/prefix`: all blobs below the prefix, or the one blob of that name."""

    def __init__(self, uri: str, secret: Mapping[str, str]) -> None:
        """Create the source.

        Args:
            uri: The storageUri.
            secret: Values of the storage Secret by key.

        Raises:
            Failure: The account, the container or a value of the Secret is invalid.
        """
        account, container, path = split_uri(uri)
        super().__init__(uri, path, _Container(uri, account, container, parse_settings(secret, account)))


def split_uri(uri: str) -> tuple[str, str, str]:
    """Return account, container and path of a URI.

    Args:
        uri: The storageUri.

    Raises:
        Failure: NotFound: it names no account or no container.

    >>> split_uri("az://account/models/m/1")
    ('account', 'models', '/m/1')
    """
    parts = urlsplit(uri)
    container, slash, path = parts.path.removeprefix("/").partition("/")
    for name, pattern, kind in ((parts.netloc, _ACCOUNT, "a storage account"), (container, _CONTAINER, "a container")):
        if not name:
            raise Failure(Reason.NOT_FOUND, f"{uri} names no {kind.removeprefix('a ')}: write {_FORM}.")
        if not pattern.fullmatch(name):
            raise Failure(Reason.NOT_FOUND, f"{uri}: {name!r} cannot be {kind}'s name. Write {_FORM}.")
    return parts.netloc, container, slash + path


class _Container:
    """A container of Azure Blob Storage, as in Bucket."""

    def __init__(self, uri: str, account: str, name: str, settings: AzSettings) -> None:
        credential = settings.credential
        self.name = name
        self.terms = find_terms(credential, has_identity=has_variables(*IDENTITY))
        if settings.skip_signature:
            self.terms = replace(self.terms, credentials="AZURE_SKIP_SIGNATURE to false")
        self.endpoint = settings.endpoint
        host = f"{account}.blob.core.windows.net"
        self.default_endpoint = Endpoint(f"https://{host}", host, 443)
        self.network: NetworkSettings = settings
        self.is_signed = credential is not None
        self.read_headers = NO_HEADERS
        self.unknown = settings.unknown
        self._account = account
        self._credential: Credential | None = credential
        self._renewal: Renewal[AzureBearerToken] | None = None
        if isinstance(credential, ServicePrincipal | FederatedIdentity):
            tokens = TokenSource(uri, credential, settings)
            self._renewal = Renewal((credential, settings), tokens.request)
        self.signs_urls = self.is_signed and self._renewal is None

    def open(self, endpoint: str, proxy: str, on_failure: Callable[[Failure], None]) -> AzureStore:
        """Return the client, as in Bucket."""
        config: dict[str, Any] = {
            "account_name": self._account,
            "endpoint": endpoint,
            "use_emulator": False,
            **self._build_credential(),
        }
        options = build_options(proxy)
        return AzureStore(
            self.name,
            config=config,  # type: ignore[arg-type]
            client_options=options,  # type: ignore[arg-type]
            retry_config=build_retries(),
            credential_provider=self._renewal.build_provider(on_failure) if self._renewal else None,
        )

    def _build_credential(self) -> dict[str, Any]:
        """Return the client's settings of the credentials.

        Without the type of the credentials, the client would also take those of its environment variables, of the
        program az, or of the cloud's metadata server.
        """
        match self._credential:
            case AccountKey(key):
                return {"credential_type": "access_key", "account_key": key}
            case Sas(token):
                return {"credential_type": "sas_token", "sas_key": token}
            case _:
                return {"credential_type": "bearer_token", "token": "", "skip_signature": not self.is_signed}
