"""The checks of a model's files before Triton reads them."""

from typing import Annotated

from pydantic import ConfigDict, Field

from conch.api._base import ConfigMapRef, Part
from conch.api.cel import Rule
from conch_contract.verification import LONGEST_SIGNATURE_PATH, SIGNATURE_FILE, SIGNATURE_PATH


class Signature(Part):
    """Signature by OpenSSF Model Signing."""

    config_map_ref: ConfigMapRef
    """ConfigMap with trusted public keys or root certificates in PEM, or a trusted identity."""
    path: Annotated[str, Field(max_length=LONGEST_SIGNATURE_PATH, pattern=SIGNATURE_PATH)] = SIGNATURE_FILE
    """File of the signature inside storageUri, without hidden names."""


class Verification(Part):
    """Checks of the files. Those that do not pass are not served."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    digest: Annotated[
        str,
        Field(max_length=256),
        Rule(
            "self.matches('^sha256:[0-9a-f]{64}$')",
            message="a digest is sha256: and 64 of 0-9 and a-f; copy that of the status, or what sha256sum prints for"
            " a file",
        ),
    ] = ""
    """Digest of the files, as in the status; of one file also sha256: and its SHA-256."""
    signature: Signature | None = None
    """Signature that the files must have, by OpenSSF Model Signing."""
