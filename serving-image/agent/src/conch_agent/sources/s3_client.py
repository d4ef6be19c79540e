"""The client of an S3 store, with the settings of the storage Secret."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import obstore
from obstore.store import S3Store

from conch_agent.sources.s3_settings import S3Settings

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta

REGION: Final = "us-east-1"  # if the Secret has no region


def open_store(bucket: str, settings: S3Settings, endpoint: str, proxy: str) -> S3Store:
    """Return the client of a bucket.

    Args:
        bucket: The bucket's name.
        settings: The settings of the storage Secret.
        endpoint: The store's URL; empty: Amazon's.
        proxy: The URL of the proxy on loopback for all its connections.
    """
    # Without credentials and AWS_SKIP_SIGNATURE the client would request them from the cloud's metadata server.
    config: dict[str, Any] = {"AWS_REGION": settings.region or REGION, "AWS_SKIP_SIGNATURE": not settings.is_signed}
    optional = {
        "AWS_ACCESS_KEY_ID": settings.access_key_id,
        "AWS_SECRET_ACCESS_KEY": settings.secret_access_key,
        "AWS_SESSION_TOKEN": settings.session_token,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": settings.allow_http or endpoint.startswith("http://"),
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": settings.virtual_hosted,
        "AWS_REQUEST_PAYER": settings.request_payer,
    }
    config |= {key: value for key, value in optional.items() if value}
    options: dict[str, Any] = {"connect_timeout": "5s", "read_timeout": "20s", "timeout": "300s", "proxy_url": proxy}
    if settings.authorities:
        options["root_certificate"] = settings.authorities
    return S3Store(
        bucket,
        config=config,  # type: ignore[arg-type]
        client_options=options,  # type: ignore[arg-type]
        retry_config={
            "max_retries": 2,
            "retry_timeout": timedelta(seconds=20),
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=1),
                "base": 2,
            },
        },
    )


async def read_meta(store: S3Store, key: str, version: str = "") -> ObjectMeta:
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
