"""An issuer of service account tokens as a cluster has it, and a store whose token service knows its roles."""

from __future__ import annotations

import base64
import json
import os
import sys
import time
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.serving.processes import Process, until
from tests.support.ports import free_port

AUDIENCE = "sts.amazonaws.com"
_KEY_ID = "key"


def _statement(action: list[str], **fields: object) -> dict[str, object]:
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, **fields}]}


class Issuer:
    """Its keys are files of a web server, as those of a cluster's issuer are."""

    def __init__(self, folder: Path) -> None:
        self._key = rsa.generate_private_key(65537, 2048)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        key = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key()))
        (folder / "keys").mkdir(parents=True)
        (folder / "keys" / "jwks").write_text(json.dumps({"keys": [{**key, "kid": _KEY_ID, "alg": "RS256"}]}))
        command = [sys.executable, "-m", "http.server", "--bind=127.0.0.1", f"--directory={folder / 'keys'}", str(port)]
        environment = {"PATH": "/usr/bin:/bin", "PYTHONUNBUFFERED": "1"}
        self.server = Process(command, folder / "issuer.log", environment)
        until(lambda: "Serving" in self.server.log.read_text(), "the issuer listens", self.server)

    def issue(self, account: str, seconds: float = 3600) -> str:
        """Return the token of a service account, as `namespace:name`."""
        claims = {
            "iss": self.url,
            "sub": f"system:serviceaccount:{account}",
            "aud": [AUDIENCE],
            "exp": time.time() + seconds,
        }
        return jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": _KEY_ID})

    def build_roles(self, role: str, account: str, bucket: str) -> dict[str, object]:
        """Return the configuration of a store with a role that one service account may assume, to read a bucket."""
        resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
        condition = {"StringEquals": {"oidc:sub": f"system:serviceaccount:{account}"}}
        trust = _statement(["sts:AssumeRoleWithWebIdentity"], Principal={"Federated": "cluster"}, Condition=condition)
        provider = {"issuer": self.url, "clientId": AUDIENCE, "jwksUri": f"{self.url}/jwks"}
        name = role.rpartition("/")[2]
        return {
            "sts": {
                "tokenDuration": "15m",
                "maxSessionLength": "12h",
                "issuer": "store",
                "signingKey": base64.b64encode(os.urandom(32)).decode(),
            },
            "providers": [{"name": "cluster", "type": "oidc", "enabled": True, "config": provider}],
            "policy": {"defaultEffect": "Deny", "storeType": "memory"},
            "policies": [
                {"name": "read", "document": _statement(["s3:GetObject", "s3:ListBucket"], Resource=resources)}
            ],
            "roles": [{"roleName": name, "roleArn": role, "attachedPolicies": ["read"], "trustPolicy": trust}],
        }
