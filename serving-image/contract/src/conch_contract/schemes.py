"""The table of schemes of storageUri, one row each.

The rules of the CRD, the reference pages, the mounts of the pod and the agent's sources derive from these rows. A new
scheme needs a row here, and a module of its name in `conch_agent.sources`.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from conch_contract.scheme import Mount, Refusal, Scheme, SecretKey

# A path whose last part has no suffix: a folder, as far as a URL shows it. A signed URL has a query.
_FOLDER: Final = "(/([^?#]*/)?[^./?#]*)?"
# The hosts of Azure Blob Storage and Azure Data Lake Storage in each of Azure's clouds.
_AZURE: Final = (
    "[^/]*[.](blob|dfs)[.](core[.]windows[.]net|core[.]chinacloudapi[.]cn|core[.]usgovcloudapi[.]net"
    "|storage[.]azure[.]net)"
)

_HUB_NAME: Final = "[A-Za-z0-9_][A-Za-z0-9._-]*"  # of an owner or a repository
_HUB_SITE: Final = "https?://(www[.])?(huggingface|hf)[.]co"

_REGISTRY: Final = "[A-Za-z0-9-]+([.][A-Za-z0-9-]+)*(:[0-9]+)?"
_PART: Final = "[a-z0-9]+([._-]+[a-z0-9]+)*"  # of the name of a repository in a registry
_TAG: Final = ":[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST: Final = "@sha256:[0-9a-f]{64}"

_PROXIES: Final = (
    SecretKey(
        "HTTPS_PROXY",
        "the [proxy](../serving-image.md#proxies) for `https://`, such as `http://user:password@proxy.example:3128`",
    ),
    SecretKey("HTTP_PROXY", "the proxy for `http://`"),
    SecretKey(
        "NO_PROXY",
        "servers that are reached without: hosts, domains and networks, such as `.svc,10.0.0.0/8`; `*` is all",
    ),
)

_ROWS: Final = (
    Scheme(
        "s3",
        pattern="[a-z0-9][a-z0-9._-]{1,61}[a-z0-9](/[^?#]*)?",
        examples=("bucket", "bucket/prefix"),
        files="all objects below the prefix, or the object of that key",
        resumption="yes",
        is_object_store=True,
        secret_keys=(
            SecretKey(
                "AWS_ACCESS_KEY_ID",
                "with `AWS_SECRET_ACCESS_KEY`, the credentials; without both, requests are not signed (public buckets)",
                is_credential=True,
            ),
            SecretKey("AWS_SECRET_ACCESS_KEY", "the other half of the credentials", is_credential=True),
            SecretKey("AWS_SESSION_TOKEN", "the token of temporary credentials"),
            SecretKey(
                "AWS_ENDPOINT_URL",
                "for stores other than Amazon's, such as `https://store.example:9000`",
                is_address=True,
            ),
            SecretKey(
                "AWS_ENDPOINT_URL_STS",
                "the token service of the [pod's role](../serving-image.md#credentials-of-the-pods-service-account),"
                " where it is not Amazon's",
            ),
            SecretKey("AWS_REGION", "the region; default `us-east-1`"),
            SecretKey("AWS_DEFAULT_REGION", "the region where `AWS_REGION` is absent"),
            SecretKey("AWS_ALLOW_HTTP", "`true` allows an `http://` endpoint"),
            SecretKey("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "`true` puts the bucket into the host name"),
            SecretKey("AWS_SKIP_SIGNATURE", "`true` sends no credentials"),
            SecretKey("AWS_REQUEST_PAYER", "`true` agrees to pay for requests to such buckets"),
            SecretKey(
                "ca.crt",
                "PEM certificates to trust for the endpoint: roots, or the server's own as `openssl req -x509` makes"
                " it",
            ),
            *_PROXIES,
        ),
    ),
    Scheme(
        "gs",
        pattern="[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](/[^?#]*)?",
        examples=("bucket", "bucket/prefix"),
        files="all objects below the prefix, or the object of that key",
        resumption="yes",
        is_object_store=True,
        secret_keys=(
            SecretKey(
                "GOOGLE_SERVICE_ACCOUNT_KEY",
                "the JSON key of a service account; without it, requests are not signed (public buckets)",
                is_credential=True,
            ),
            SecretKey(
                "GOOGLE_POD_IDENTITY",
                "`true` reads without a key, with the"
                " [identity of the pod](../serving-image.md#credentials-of-the-pods-service-account) on GKE",
            ),
            SecretKey("GOOGLE_BASE_URL", "an endpoint other than `https://storage.googleapis.com`", is_address=True),
            SecretKey("GOOGLE_ALLOW_HTTP", "`true` allows an `http://` endpoint"),
            SecretKey("ca.crt", "PEM certificates to trust for the endpoint, as for s3"),
            *_PROXIES,
        ),
    ),
    Scheme(
        "az",
        pattern="[a-z0-9]{3,24}/[$a-z0-9][a-z0-9-]{1,61}[a-z0-9](/[^?#]*)?",
        examples=("account/container", "account/container/prefix"),
        files="all blobs below the prefix, or the blob of that name",
        resumption="yes",
        is_object_store=True,
        secret_keys=(
            SecretKey(
                "AZURE_STORAGE_SAS_TOKEN",
                "a SAS token of the container or account, with the permissions `r` and `l`; without it and the other"
                " credentials, requests are anonymous (public containers)",
                is_credential=True,
            ),
            SecretKey("AZURE_STORAGE_SAS_KEY", "another name of `AZURE_STORAGE_SAS_TOKEN`"),
            SecretKey("AZURE_STORAGE_ACCOUNT_KEY", "in place of a SAS token, a key of the account", is_credential=True),
            SecretKey("AZURE_STORAGE_ACCESS_KEY", "another name of `AZURE_STORAGE_ACCOUNT_KEY`"),
            SecretKey(
                "AZURE_CLIENT_ID",
                "in place of a SAS token, with `AZURE_TENANT_ID` and `AZURE_CLIENT_SECRET`, a service principal",
                is_credential=True,
            ),
            SecretKey("AZURE_TENANT_ID", "the tenant of the service principal, an id or a domain", is_credential=True),
            SecretKey("AZURE_CLIENT_SECRET", "a client secret of the service principal", is_credential=True),
            SecretKey(
                "AZURE_AUTHORITY_HOST",
                "the server of tokens, of the service principal or the"
                " [pod's identity](../serving-image.md#credentials-of-the-pods-service-account), always with TLS;"
                " default `https://login.microsoftonline.com`, or for the pod's identity what the pod has",
            ),
            SecretKey("AZURE_STORAGE_ACCOUNT_NAME", "the account, which must be that of `storageUri`"),
            SecretKey(
                "AZURE_STORAGE_ENDPOINT",
                "the account's address where it is not `https://<account>.blob.core.windows.net`: another cloud, a"
                " private endpoint, or an emulator as `http://host:10000/<account>`",
                is_address=True,
            ),
            SecretKey("AZURE_ALLOW_HTTP", "`true` allows an `http://` endpoint"),
            SecretKey("AZURE_SKIP_SIGNATURE", "`true` sends no credentials"),
            SecretKey("ca.crt", "PEM certificates to trust for the endpoint and the authority, as for s3"),
            *_PROXIES,
        ),
    ),
    Scheme(
        "https",
        pattern="[^/@?#[:space:]]+/[^[:space:]]+",
        examples=("host/file",),
        files="one file, or the members of a tar file (`.tar`, `.tar.gz`, `.tgz`, `.tar.zst`)",
        resumption="where the server answers ranges",
        exclusions="user, password and blanks",
        has_plaintext=True,
        is_one_file=True,
        secret_keys=(
            SecretKey(
                "HTTPS_AUTHORIZATION",
                "the header `Authorization`, such as `Bearer <token>`, sent to `HTTPS_HOST` alone, and not without TLS",
                is_credential=True,
            ),
            SecretKey("HTTPS_HOST", "the host of `storageUri`, with its port if that is not 443", is_credential=True),
            SecretKey("ca.crt", "PEM certificates to trust for the server, as for s3"),
            *_PROXIES,
        ),
        refusals=(
            Refusal(
                (
                    f"https?://([^/]*[.])?s3([.-][a-z0-9.-]*)?[.]amazonaws[.]com{_FOLDER}$",
                    "https?://([^/]*[.])?console[.]aws[.]amazon[.]com/",
                ),
                "https fetches one file, and this is a folder of S3 or its console; write s3://bucket/prefix",
            ),
            Refusal(
                (
                    f"https?://({_AZURE}|storage[.]googleapis[.]com){_FOLDER}$",
                    "https?://(portal[.]azure|console[.]cloud[.]google|storage[.]cloud[.]google)[.]com/",
                ),
                "https fetches one file, and this is a folder of Azure Blob Storage or Google Cloud Storage, or a"
                " console; name the file, or write az://account/container/prefix or gs://bucket/prefix",
            ),
            Refusal(
                (f"{_HUB_SITE}/[^/]+/[^/?#]+(/?([?#].*)?$|/(tree|blob)/)",),
                "this is a page of Hugging Face, not a file; write hf://owner/name@revision/path",
            ),
        ),
    ),
    Scheme(
        "hf",
        pattern=f"{_HUB_NAME}/{_HUB_NAME}(@[^/@?#[:space:]]+)?(/[^?#]*)?",
        examples=("owner/name", "owner/name@revision/path"),
        files="all files of a repository on a hub (Hugging Face's or another), those of a folder in it, or one file;"
        " the revision is a branch, tag or commit, in which a slash is `%2F`, and by default `main`",
        resumption="where the server answers ranges",
        secret_keys=(
            SecretKey(
                "HF_TOKEN", "the access token; without it, requests are anonymous (public models)", is_credential=True
            ),
            SecretKey("HF_ENDPOINT", "the address of another hub; default `https://huggingface.co`", is_address=True),
            SecretKey("HF_ALLOW_HTTP", "`true` allows an `http://` endpoint, to which the token is sent unencrypted"),
            SecretKey(
                "ca.crt",
                "PEM certificates to trust for the endpoint, and for servers to which it redirects",
            ),
            *_PROXIES,
        ),
        refusals=(
            Refusal(
                ("hf://(model|dataset|space)s/",),
                "hf fetches models alone; write hf://owner/name, without models/ and the like",
            ),
        ),
    ),
    Scheme(
        "oci",
        # Neither a tag nor a digest has a slash, so that the first slash after it begins the path.
        pattern=f"{_REGISTRY}/{_PART}(/{_PART})*({_TAG}|({_TAG})?{_DIGEST})(/[^?#]*)?",
        examples=("registry.example/name:tag", "registry.example/name:tag/path"),
        files="the files of an artifact in a registry, as `oras push` makes it, also of what is packed in it, or those"
        " below `/models` of an image; of a folder in either, or one file;"
        " `@sha256:digest` stands in place of `:tag`, or after it",
        resumption="where the server answers ranges",
        exclusions="capitals in the name",
        secret_keys=(
            SecretKey(
                ".dockerconfigjson",
                "logins by registry, as in a Secret of the type `kubernetes.io/dockerconfigjson`; without one of the"
                " registry, requests are anonymous (public models)",
                is_credential=True,
            ),
            SecretKey("OCI_PLAIN_HTTP", "`true` for a registry without TLS, to which the login is sent unencrypted"),
            SecretKey(
                "ca.crt",
                "PEM certificates to trust for the registry, its token service, and servers to which they redirect",
            ),
            *_PROXIES,
        ),
        refusals=(
            Refusal(
                ("oci://[^/.:]+/",),
                "oci needs the registry's host, with a dot or a port; write oci://docker.io/owner/name:tag",
            ),
        ),
    ),
    Scheme(
        "pvc",
        pattern="[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[^/?#]+)*/?",
        examples=("claim", "claim/path"),
        files="a folder or file of a claim, mounted read-only",
        resumption="hard link or copy",
        mount=Mount.CLAIM,
    ),
    Scheme(
        "file",
        pattern="(/[^/?#]+)+/?",
        examples=("/path",),
        files="a folder or file in the container, such as one of a volume of `pod.volumes`",
        resumption="hard link or copy",
        mount=Mount.USER_VOLUMES,
    ),
)

SCHEMES: Final[Mapping[str, Scheme]] = {scheme.name: scheme for scheme in _ROWS}
"""The rows by name."""

REMEDIES: Final[Mapping[str, str]] = {
    "as|adl|azure|abfss?|wasbs?": "storageUri does not take this scheme of Azure Blob Storage; write"
    " az://account/container/prefix",
    "gcs": "storageUri does not take this scheme of Google Cloud Storage; write gs://bucket/prefix",
    "s3a|s3n|minio": "storageUri does not take this scheme; write s3://bucket/prefix, and for a store other than"
    " Amazon's AWS_ENDPOINT_URL in the Secret of storage.secretRef",
}
"""What to write in place of the schemes of other tools, by a regular expression (RE2) of their names."""


def find_scheme(uri: str) -> Scheme | None:
    """Return the row of a URI's scheme; None where there is none.

    Args:
        uri: A storageUri.

    >>> [scheme and scheme.name for scheme in map(find_scheme, ("http://host/m.onnx", "ftp://host", "models"))]
    ['https', None, None]
    """
    name, colon, _ = uri.partition(":")
    found = (scheme for scheme in SCHEMES.values() if name.lower() in scheme.names)
    return next(found, None) if colon else None


def has_form(uri: str) -> bool:
    """Return True for a URI of the form of its scheme, as the API server accepts a storageUri.

    Args:
        uri: The URI.

    >>> [has_form(uri) for uri in ("pvc://claim/path", "pvc:///path", "pvc://a:b/path", "ftp://host")]
    [True, False, False, False]
    """
    scheme, rest = find_scheme(uri), uri.partition("://")[2]
    return scheme is not None and re.fullmatch(scheme.pattern.replace("[:space:]", r"\s"), rest) is not None


def list_names(schemes: Iterable[Scheme] = SCHEMES.values()) -> tuple[str, ...]:
    """Return the names of schemes, those without TLS included.

    Args:
        schemes: The rows.

    >>> list_names((SCHEMES["s3"], SCHEMES["https"]))
    ('s3', 'https', 'http')
    """
    return tuple(name for scheme in schemes for name in scheme.names)
