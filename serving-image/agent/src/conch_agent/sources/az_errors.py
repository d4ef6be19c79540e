"""Codes and remedies of Azure Blob Storage, for each kind of credentials.

Its codes are in https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes and in
https://learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from conch_agent.sources.answer import Answer
from conch_agent.sources.az_credentials import AccountKey, Credential, FederatedIdentity, Sas, ServicePrincipal
from conch_agent.sources.store_errors import StoreTerms

_BUSY: Final = "The store is overloaded or limits requests; the agent tries again."
_FAULT: Final = "The store has a fault; the agent tries again."
_REHYDRATE: Final = "Move the blob to the tier Hot, Cool or Cold, or upload the model again."
_NAMES: Final = "Correct the container and the path in storageUri."


_DENIED: Final = frozenset(
    {
        *("AuthenticationFailed", "AuthorizationFailure", "AuthorizationPermissionMismatch"),
        *("InsufficientAccountPermissions", "InvalidAuthenticationInfo", "KeyBasedAuthenticationNotPermitted"),
        *("NoAuthenticationInformation", "PublicAccessNotPermitted"),
        *("AuthorizationProtocolMismatch", "AuthorizationSourceIPMismatch", "AccountIsDisabled"),
    }
)
_REMEDIES: Final = {
    "AccountIsDisabled": "Enable the storage account.",
    "AuthorizationProtocolMismatch": "The SAS token is for https alone: write AZURE_STORAGE_ENDPOINT with https://.",
    "AuthorizationSourceIPMismatch": "Make a SAS token that admits the addresses of the cluster.",
    "KeyBasedAuthenticationNotPermitted": (
        "The account permits no access by key: write a service principal (AZURE_TENANT_ID, AZURE_CLIENT_ID and"
        " AZURE_CLIENT_SECRET) into the storage Secret."
    ),
    "ServerBusy": _BUSY,
    "OperationTimedOut": _BUSY,
    "InternalError": _FAULT,
    "429": _BUSY,
    "500": _FAULT,
    "502": _FAULT,
    "503": _BUSY,
    "504": _FAULT,
    "BlobArchived": _REHYDRATE,
    "BlobBeingRehydrated": "The blob leaves the archive; the agent tries again.",
    "ContainerBeingDeleted": "The container is being deleted; create it again, or correct storageUri.",
    "ContainerDisabled": "Enable the container.",
    "BlobNotFound": "Correct storageUri.",
    "InvalidResourceName": _NAMES,
    "InvalidUri": _NAMES,
    "OutOfRangeInput": _NAMES,
}


def _read_details(answer: Answer) -> str:
    """Return the cause of refused credentials, such as the time at which they expired.

    That of a wrong signature is left out: it has the text that was signed, and the signature.
    """
    details = answer.elements.get("AuthenticationErrorDetail", "")
    return "" if "sign used" in details.lower() or "string to sign" in details.lower() else details


_ANONYMOUS: Final = StoreTerms(
    endpoint_key="AZURE_STORAGE_ENDPOINT",
    credentials="AZURE_STORAGE_SAS_TOKEN, AZURE_STORAGE_ACCOUNT_KEY, or a service principal,",
    rights="",
    version_permission="the reading of blob versions",
    keep_versions=(
        "Turn on blob versioning of the account, and let its lifecycle rules keep older versions for as long as"
        " revisions serve them."
    ),
    no_bucket=frozenset({"ContainerNotFound"}),
    denied=_DENIED | {"ResourceNotFound"},  # the answer for a container that is not public
    remedies=_REMEDIES,
    wrong_endpoint="Does AZURE_STORAGE_ENDPOINT name the blob service of the account, or a proxy in front of it?",
    wrong_region="Set AZURE_STORAGE_ENDPOINT in the storage Secret to what the store names.",
    noun="container",
    unknown_host=(
        "Correct the account in storageUri, which is az://account/container/prefix, or the DNS of the cluster"
    ),
    read_details=_read_details,
)
_SIGNED: Final = replace(
    _ANONYMOUS,
    denied=_DENIED,
    remedies=_REMEDIES | {"ResourceNotFound": "Correct the account in storageUri, or AZURE_STORAGE_ENDPOINT."},
)
_BY_CREDENTIAL: Final = {
    AccountKey: replace(
        _SIGNED,
        credentials="AZURE_STORAGE_ACCOUNT_KEY",
        rights="the clock of the node is right, and the network rules of the account permit access to",
    ),
    Sas: replace(
        _SIGNED,
        credentials="AZURE_STORAGE_SAS_TOKEN",
        rights="it has not expired, was made with a present key of the account, and permits reading and listing of",
    ),
    ServicePrincipal: replace(
        _SIGNED,
        credentials="AZURE_CLIENT_ID",
        rights="its service principal has the role Storage Blob Data Reader on",
    ),
    FederatedIdentity: replace(
        _SIGNED,
        credentials="AZURE_CLIENT_ID",
        rights="this identity has the role Storage Blob Data Reader on",
        origin="of the pod",
    ),
}


def find_terms(credential: Credential | None, *, has_identity: bool = False) -> StoreTerms:
    """Return the terms for requests with some credentials.

    Args:
        credential: The credentials; None: requests are anonymous.
        has_identity: True if the pod has an identity, which anonymous requests could have.
    """
    if credential:
        return _BY_CREDENTIAL[type(credential)]
    return _ANONYMOUS.offer_identity("AZURE_AUTHORITY_HOST") if has_identity else _ANONYMOUS
