"""Keys of Google's service accounts."""

from __future__ import annotations

import base64
import json

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa


class Account:
    """A service account with a key, as Google's console makes it."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(65537, 2048)
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.fields: dict[str, object] = {
            "type": "service_account",
            "project_id": "conch",
            "private_key_id": "1f2e",
            "private_key": pem.decode(),
            "client_email": "reader@conch.iam.gserviceaccount.com",
            "client_id": "1",
            "auth_uri": "https://accounts.google.com/o/oauth2/auth",
            "token_uri": "https://oauth2.googleapis.com/token",
            "universe_domain": "googleapis.com",
        }

    def write(self, **fields: object) -> str:
        """Return the file of the key, with other values of some fields; None removes a field."""
        return json.dumps({name: value for name, value in (self.fields | fields).items() if value is not None})

    def read_token(self, token: str) -> dict[str, object]:
        """Return the claims of a token that this key has signed (RFC 7515)."""
        head, claims, signature = token.split(".")
        public, text = self._key.public_key(), f"{head}.{claims}".encode()
        public.verify(_decode(signature), text, padding.PKCS1v15(), hashes.SHA256())
        assert json.loads(_decode(head)) == {"typ": "JWT", "alg": "RS256", "kid": self.fields["private_key_id"]}
        return dict(json.loads(_decode(claims)))


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
