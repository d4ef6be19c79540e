"""Codes and remedies of S3 stores."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from conch_agent.reasons import Failure
from conch_agent.sources import store_errors
from conch_agent.sources.store_errors import StoreTerms, Target

_DENIED: Final = frozenset(
    {
        "AccessDenied",
        "AccountProblem",
        "AllAccessDisabled",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidSecurity",
        "InvalidToken",
        "NotSignedUp",
        "SignatureDoesNotMatch",
        "Unauthorized",
        "UnauthorizedAccess",
    }
)
_REMEDIES: Final = {
    "PermanentRedirect": "Set AWS_REGION, or AWS_ENDPOINT_URL, in the storage Secret to what the store names.",
    "ExpiredToken": "The temporary credentials in the storage Secret have expired: write others, or a key that lasts.",
    "TemporaryRedirect": "The bucket is moving; the agent tries again.",
    "AuthorizationHeaderMalformed": "Set AWS_REGION in the storage Secret to the region that the store names.",
    "IllegalLocationConstraintException": "Set AWS_REGION in the storage Secret to the bucket's region.",
    "RequestTimeTooSkewed": "Correct the clock of the node, or of the store.",
    "RequestExpired": "Correct the clock of the node, or of the store.",
    "SlowDown": "The store limits requests; the agent tries again.",
    "ServiceUnavailable": "The store is overloaded; the agent tries again.",
    "InternalError": "The store has a fault; the agent tries again. Read the store's log.",
    "InvalidObjectState": "The object is archived; restore it, or upload the model again.",
    "InvalidBucketName": "Correct the bucket in storageUri.",
    "NoSuchKey": "Correct storageUri.",
    "MethodNotAllowed": "Does AWS_ENDPOINT_URL name an S3 endpoint? A console often has another port.",
}
_RENEWED: Final = "The agent requests other credentials and tries again. If that fails too, correct the node's clock."

TERMS: Final = StoreTerms(
    endpoint_key="AWS_ENDPOINT_URL",
    credentials="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    rights="they may list and read",
    version_permission="s3:GetObjectVersion",
    keep_versions="Let the bucket's lifecycle rules keep older versions for as long as revisions serve them.",
    no_bucket=frozenset({"NoSuchBucket"}),
    denied=_DENIED,
    remedies=_REMEDIES,
    wrong_endpoint="Does AWS_ENDPOINT_URL name an S3 endpoint? A console or a proxy often has another port.",
    wrong_region=_REMEDIES["PermanentRedirect"],
)


def find_role_terms(role: str = "") -> StoreTerms:
    """Return the terms for requests with the credentials of a role.

    Args:
        role: The role's ARN; empty: it is not known.
    """
    return replace(
        TERMS,
        remedies={**_REMEDIES, "ExpiredToken": _RENEWED},
        credentials=f"the policies of the role {role}".rstrip(),
        origin="of the pod",
        rights="they permit to list and read",
    )


def classify(error: Exception, uri: str, bucket: str, endpoint: str) -> Failure:
    """Return the failure of the client's error, as `store_errors.classify`.

    Args:
        error: The client's exception.
        uri: The storageUri, with which the message begins.
        bucket: The bucket's name.
        endpoint: AWS_ENDPOINT_URL, or empty.
    """
    return store_errors.classify(error, Target(uri, bucket, endpoint), TERMS)
