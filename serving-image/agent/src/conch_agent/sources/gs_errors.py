"""Codes and remedies of Google Cloud Storage's XML API.

Its codes are in https://cloud.google.com/storage/docs/xml-api/reference-status.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from conch_agent.sources.store_errors import StoreTerms

_LIMITED: Final = "The store limits requests; the agent tries again."
_FAULT: Final = "The store has a fault; the agent tries again."
_WRONG_ENDPOINT: Final = "Does GOOGLE_BASE_URL name an endpoint of Google Cloud Storage, or a proxy in front of it?"

TERMS: Final = StoreTerms(
    endpoint_key="GOOGLE_BASE_URL",
    credentials="GOOGLE_SERVICE_ACCOUNT_KEY",
    rights="its service account has storage.objects.list and storage.objects.get on",
    version_permission="storage.objects.get",
    keep_versions=(
        "Turn on Object Versioning of the bucket, and let its lifecycle rules keep older versions for as long as"
        " revisions serve them."
    ),
    no_bucket=frozenset({"NoSuchBucket"}),
    denied=frozenset(
        {"AccessDenied", "AccountProblem", "AuthenticationRequired", "ExpiredToken", "InvalidSecurity", "InvalidToken"}
    ),
    remedies={
        "SlowDown": _LIMITED,
        "TooManyRequests": _LIMITED,
        "429": _LIMITED,
        "InternalError": _FAULT,
        "ServiceUnavailable": "The store is overloaded; the agent tries again.",
        "500": _FAULT,
        "502": _FAULT,
        "503": "The store is overloaded; the agent tries again.",
        "504": _FAULT,
        "NoSuchKey": "Correct storageUri.",
        "InvalidBucketName": "Correct the bucket in storageUri.",
        "UserProjectMissing": "Buckets whose requester pays are not supported; turn that off, or use another bucket.",
        "PermanentRedirect": "Set GOOGLE_BASE_URL in the storage Secret to what the store names.",
    },
    wrong_endpoint=_WRONG_ENDPOINT,
    wrong_region="Set GOOGLE_BASE_URL in the storage Secret to what the store names.",
)

POD_TERMS: Final = replace(
    TERMS,
    credentials="the service account",
    origin="of the pod",
    rights="IAM allows it storage.objects.list and storage.objects.get on",
)
"""The terms for requests with the identity of the pod."""
