"""The checks of a model's files before Triton reads them."""

from typing import Final

from conch_contract._base import Wire

# The checks in a report.
DIGEST: Final = "Digest"  # the files have the digest of Verification.digest
SIGNATURE: Final = "Signature"  # the files are those that a trusted key has signed
MOST_CHECKS: Final = 2  # of a model


SIGNATURE_FILE: Final = "model.sig"  # the name that OpenSSF's model_signing writes


class Signature(Wire):
    """A signature of the files, as OpenSSF Model Signing defines it.

    Attributes:
        config_map: Name of the ConfigMap with the trusted keys, certificates or identity, which is mounted at
            TRUST_DIR/<name>.
        path: The file of the signature, below storageUri.
    """

    config_map: str
    path: str = SIGNATURE_FILE


class Verification(Wire):
    """The checks, all of which the files have to pass.

    Attributes:
        digest: Digest that the files have to have, sha256:<hex>: that of a ModelReport, or of the only file that
            storageUri names, its SHA-256. Empty: any.
        signature: The signature that the files have to have; None: none.
    """

    digest: str = ""
    signature: Signature | None = None
