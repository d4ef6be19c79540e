"""An issuer of service account tokens as a cluster has it, and a store whose token service knows its roles."""

from __future__ import annotations

import base64
import json
import os
import re
import sys
import threading
import time
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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


class EksAgent:
    """What EKS Pod Identity has on each node: it returns the credentials of a role for the token of its account."""

    def __init__(self, store: str, issuer: Issuer, role: str, account: str) -> None:
        self._store, self._issuer, self._role, self._account = store, issuer, role, account
        self.token = "token-of-the-account"
        self.requests = 0
        agent = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                agent.requests += 1
                is_known = (self.path, self.headers["Authorization"]) == ("/v1/credentials", agent.token)
                body = json.dumps(agent.assume() if is_known else {"message": "token is expired"}).encode()
                self.send_response(200 if is_known else 400)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._server = ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/credentials"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def assume(self) -> dict[str, str]:
        """Return credentials, which are those of the store's token service."""
        form = {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": self._role,
            "RoleSessionName": "eks",
            "WebIdentityToken": self._issuer.issue(self._account),
        }
        with urllib.request.urlopen(self._store, urllib.parse.urlencode(form).encode()) as answer:  # noqa: S310  http
            text = answer.read().decode()
        names = {
            "AccessKeyId": "AccessKeyId",
            "SecretAccessKey": "SecretAccessKey",
            "Token": "SessionToken",
            "Expiration": "Expiration",
        }
        return {name: re.findall(f"<{field}>([^<]+)<", text)[0] for name, field in names.items()}

    def close(self) -> None:
        self._server.shutdown()
