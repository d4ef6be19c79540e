"""`s3://bucket/prefix`: files in an S3 store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from obstore.store import S3Store

from conch_agent.reasons import Failure
from conch_agent.sources.base import Location
from conch_agent.sources.network import NetworkSettings
from conch_agent.sources.object_store import ObjectStoreSource, parse_bucket
from conch_agent.sources.pod_identity import has_variables, read_variable
from conch_agent.sources.renewal import Renewal
from conch_agent.sources.s3_errors import TERMS, find_role_terms
from conch_agent.sources.s3_pod_identity import PodIdentitySession, find_pod_identity
from conch_agent.sources.s3_role import SERVICE, RoleSession, find_web_identity
from conch_agent.sources.s3_settings import KEYS, S3Settings, build_host, has_role, parse_region, parse_settings
from conch_agent.sources.secret_settings import Endpoint
from conch_agent.sources.store_client import NO_HEADERS, build_options, build_retries
from conch_agent.sources.store_errors import StoreTerms

if TYPE_CHECKING:
    from obstore.store import S3Credential

__all__ = ["KEYS", "S3Source", "open_source"]

_REGION: Final = "us-east-1"  # if neither the Secret nor the environment has a region
_WRITE_REGION: Final = "Write AWS_REGION into the storage Secret, or correct it in the pod"


def open_source(location: Location) -> S3Source:
    """Return the source of a bucket and prefix.

    Args:
        location: The location.

    Raises:
        Failure: The bucket or a value of the Secret is invalid.
    """
    return S3Source(location.uri, location.secret)


class S3Source(ObjectStoreSource):
    """`s3://bucket/prefix`: all objects below the prefix, or the one object of that key."""

    def __init__(self, uri: str, secret: Mapping[str, str]) -> None:
        """Create the source.

        Args:
            uri: The storageUri.
            secret: Values of the storage Secret by key.

        Raises:
            Failure: The bucket or a value of the Secret is invalid.
        """
        super().__init__(uri, urlsplit(uri).path, _S3Bucket(uri, parse_settings(secret)))


class _S3Bucket:
    """A bucket of an S3 store, as in Bucket."""

    def __init__(self, uri: str, settings: S3Settings) -> None:
        self.name = name = parse_bucket(uri)
        self.terms: StoreTerms = TERMS
        self.endpoint = settings.endpoint
        self.network: NetworkSettings = settings
        self._region = settings.region or _find_region()
        self._renewal: Renewal[S3Credential] | None = None
        if settings.takes_role and (role := self._find_role(uri, settings)):
            self._renewal, self.terms = role
        elif settings.skip_signature:
            self.terms = replace(TERMS, credentials="AWS_SKIP_SIGNATURE to false")
        elif not settings.is_signed and has_role():
            self.terms = TERMS.offer_identity(SERVICE)
        self.is_signed = self.signs_urls = settings.is_signed or self._renewal is not None
        self.read_headers = NO_HEADERS
        self.unknown = settings.unknown
        self._settings = settings
        host = build_host("s3", self._region)
        host = f"{name}.{host}" if settings.virtual_hosted else host
        self.default_endpoint = Endpoint(f"https://{host}", host, 443)

    def _find_role(self, uri: str, settings: S3Settings) -> tuple[Renewal[S3Credential], StoreTerms] | None:
        """Return the credentials of the pod's role, in the order of Amazon's libraries; None: it has none."""
        host = build_host("sts", self._region)
        service = settings.token_service or Endpoint(f"https://{host}", host, 443)
        if identity := find_web_identity(service):
            request = RoleSession(uri, identity, settings).request
            return Renewal((identity, settings), request), find_role_terms(identity.role)
        if pod := find_pod_identity():
            return Renewal(pod, PodIdentitySession(uri, pod).request), find_role_terms()
        return None

    def open(self, endpoint: str, proxy: str, on_failure: Callable[[Failure], None]) -> S3Store:
        """Return the client, as in Bucket."""
        settings = self._settings
        # Without credentials and AWS_SKIP_SIGNATURE the client would request them from the cloud's metadata server.
        config: dict[str, Any] = {"AWS_REGION": self._region, "AWS_SKIP_SIGNATURE": not self.is_signed}
        optional = {
            "AWS_ACCESS_KEY_ID": settings.access_key_id,
            "AWS_SECRET_ACCESS_KEY": settings.secret_access_key,
            "AWS_SESSION_TOKEN": settings.session_token,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": settings.virtual_hosted,
            "AWS_REQUEST_PAYER": settings.request_payer,
        }
        config |= {key: value for key, value in optional.items() if value}
        return S3Store(
            self.name,
            config=config,  # type: ignore[arg-type]
            client_options=build_options(proxy),  # type: ignore[arg-type]
            retry_config=build_retries(),
            credential_provider=self._renewal.build_provider(on_failure) if self._renewal else None,
        )


def _find_region() -> str:
    """Return the region of the pod, which EKS adds to its environment, or the default one."""
    return read_variable("AWS_REGION", parse_region, _WRITE_REGION) if has_variables("AWS_REGION") else _REGION
