"""Which model is served, and where its files are."""

import json
from typing import Annotated, Final

from pydantic import ConfigDict, Field

from conch.api._base import ObjectName, Part
from conch.api.cel import Choice, Rule, rules
from conch_contract.manifest import ModelFormat

_SCHEME: Final = "self.matches('^(s3|https|http|pvc|file)://')"


def _form(scheme: str, pattern: str, form: str) -> Rule:
    """Return the rule of one scheme: what follows it, and the form to write."""
    return Rule(
        f"!self.startsWith('{scheme}://') || self.matches('^{scheme}://{pattern}$')",
        message=f"an incomplete {scheme} URI; write {form}",
    )


# A path of which the last part has no suffix: a folder, as far as a URL tells. A signed URL has a query.
_FOLDER: Final = "(/([^?#]*/)?[^./?#]*)?"


_SCHEMES: Final = (
    "storageUri needs one of the schemes s3, https, http, pvc and file; write it as s3://bucket/prefix,"
    " https://host/file, pvc://claim/path or file:///path"
)
# Schemes of other tools, and what to write in their place.
_REMEDIES: Final = {
    "az|azure|abfss?|wasbs?": "storageUri does not take this scheme of Azure Blob Storage; write one file as"
    " https://account.blob.core.windows.net/container/file, or copy the folder to s3://bucket/prefix or"
    " pvc://claim/path",
    "gs|gcs": "storageUri does not take this scheme of Google Cloud Storage; write one file as"
    " https://storage.googleapis.com/bucket/file, or copy the folder to s3://bucket/prefix or pvc://claim/path",
    "s3a|s3n|minio": "storageUri does not take this scheme; write s3://bucket/prefix, and for a store other than"
    " Amazon's AWS_ENDPOINT_URL in the Secret of storage.secretRef",
    "hf": "storageUri does not take this scheme of Hugging Face; write one file as"
    " https://huggingface.co/repository/resolve/revision/file, or copy the folder to s3://bucket/prefix or"
    " pvc://claim/path",
}
_SCHEME_REMEDY: Final = "".join(
    f"self.matches('^({schemes})://') ? {json.dumps(sentence)} : " for schemes, sentence in _REMEDIES.items()
) + json.dumps(_SCHEMES)
# The hosts of Azure Blob Storage and Azure Data Lake Storage in each of Azure's clouds.
_AZURE: Final = (
    "[^/]*[.](blob|dfs)[.](core[.]windows[.]net|core[.]chinacloudapi[.]cn|core[.]usgovcloudapi[.]net"
    "|storage[.]azure[.]net)"
)


StorageUri = Annotated[
    str,
    Field(max_length=2048),
    Rule(_SCHEME, message=_SCHEMES, expression=_SCHEME_REMEDY),
    Rule(
        r"!self.matches('^\\s|\\s$|[\\x00-\\x1f\\x7f]')",
        message="storageUri begins or ends with a blank or holds a control character; remove it",
    ),
    Rule(
        r"!self.matches('/[.][.]?(/|$)')",
        message="storageUri must not hold the folders '.' and '..'; write the path that is meant",
    ),
    _form("s3", "[a-z0-9][a-z0-9._-]{1,61}[a-z0-9](/[^?#]*)?", "s3://bucket or s3://bucket/prefix"),
    _form("https", "[^/@?#[:space:]]+/[^[:space:]]+", "https://host/file, without user, password and blanks"),
    _form("http", "[^/@?#[:space:]]+/[^[:space:]]+", "http://host/file, without user, password and blanks"),
    Rule(
        f"!self.matches('^https?://([^/]*[.])?s3([.-][a-z0-9.-]*)?[.]amazonaws[.]com{_FOLDER}$')"
        " && !self.matches('^https?://([^/]*[.])?console[.]aws[.]amazon[.]com/')",
        message="https fetches one file, and this is a folder of S3 or its console; write s3://bucket/prefix",
    ),
    Rule(
        f"!self.matches('^https?://({_AZURE}|storage[.]googleapis[.]com){_FOLDER}$')"
        " && !self.matches('^https?://(portal[.]azure|console[.]cloud[.]google|storage[.]cloud[.]google)[.]com/')",
        message="https fetches one file, and this is a folder of Azure Blob Storage or Google Cloud Storage, or a"
        " console; name the file, or copy the folder to s3://bucket/prefix or pvc://claim/path",
    ),
    _form("pvc", "[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[^/?#]+)*/?", "pvc://claim or pvc://claim/path"),
    _form("file", "(/[^/?#]+)+/?", "file:///path"),
]
"""Where a model's files are; checked by the API server."""


TritonName = Annotated[
    str,
    Field(max_length=128),
    Rule(
        "self.matches('^[A-Za-z0-9][A-Za-z0-9._-]*$')",
        message="a model's name is a folder's name and part of its URL: it begins with a letter or a digit and goes"
        " on with letters, digits, '.', '_' and '-'; choose such a name",
    ),
]
"""A model's name in Triton."""


FormatName = Annotated[
    ModelFormat,
    Choice(
        message="modelFormat.name is onnx, python, sklearn or triton; write triton for a model of any other format"
        " (TensorRT, TensorFlow, PyTorch, OpenVINO) in a folder that is laid out for Triton, with version folders and"
        " config.pbtxt"
    ),
]


class Format(Part):
    """How the model's files are to be read."""

    name: FormatName
    """Their format: onnx, python (a Triton Python model), sklearn (joblib) or triton (a folder of any format that is
    laid out for Triton: version folders and config.pbtxt)."""


class SecretRef(Part):
    """A Secret of the service's namespace."""

    name: ObjectName
    """The Secret's name."""


class Storage(Part):
    """How the store is reached."""

    secret_ref: SecretRef | None = None
    """The Secret with the store's credentials and settings, for s3."""


class Model(Part):
    """Which model is served."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "!has(self.storage) || !has(self.storage.secretRef) || self.storageUri.startsWith('s3://')",
                message="storage.secretRef is used with s3 only; remove it, or change the scheme of storageUri",
                path=".storage",
            ),
        )
    )

    name: TritonName | None = None
    """The model's name in Triton. Absent: the service's name."""
    model_format: Format
    """How the model's files are to be read."""
    storage_uri: StorageUri
    """Where its files are: s3://bucket/prefix, https://host/file, pvc://claim/path or file:///path."""
    storage: Storage | None = None
    """How the store is reached."""
