"""The checks of a model's files before Triton reads them."""

import hashlib
import json
from collections.abc import Mapping
from typing import Final, Self

from pydantic import Field

from conch_contract._base import Wire

# The checks in a report.
DIGEST: Final = "Digest"  # the files have the digest of Verification.digest
SIGNATURE: Final = "Signature"  # the files are those that a trusted key has signed
POLICY: Final = "SignaturePolicy"  # a key of the namespace's policy has signed them; a colon and its version follow
MOST_CHECKS: Final = 3  # of a model

_VERSION_DIGITS: Final = 12  # of a policy
SIGNATURE_PATH: Final = "^[^./][^/]*(/[^./][^/]*)*$"  # of a signature below storageUri: without hidden names
LONGEST_SIGNATURE_PATH: Final = 256
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


class SignaturePolicy(Wire):
    """The signatures that all models of a namespace need, whatever the user sets. It is POLICY_FILE of a pod.

    Attributes:
        name: Name of the policy.
        version: The first digits of the SHA-256 over keys and path; empty: the policy cannot be read.
        path: The file of the signature, below each storageUri.
        trusted: The trusted keys, certificates or identity, in the files of a ConfigMap for a `Signature`.
        problem: Why the policy cannot be read, and the remedy, in sentences. No model is loaded meanwhile.
    """

    name: str
    version: str = ""
    path: str = SIGNATURE_FILE
    trusted: dict[str, str] = Field(default_factory=dict)
    problem: str = ""

    @classmethod
    def build(cls, name: str, trusted: Mapping[str, str], path: str = SIGNATURE_FILE) -> Self:
        """Return the policy with these keys.

        Args:
            name: Name of the policy.
            trusted: The files with the trusted keys.
            path: The file of the signature, below each storageUri.
        """
        content = json.dumps([path, sorted(trusted.items())])
        version = hashlib.sha256(content.encode()).hexdigest()[:_VERSION_DIGITS]
        return cls(name=name, version=version, path=path, trusted=dict(trusted))

    @property
    def check(self) -> str:
        """The check in reports of models whose files have passed this version of the policy."""
        return f"{POLICY}:{self.version}"
