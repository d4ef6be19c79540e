"""A storage account of Azure: its key, shared access signatures that it makes, and tokens of Microsoft Entra ID."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import json
import time
from urllib.parse import urlencode

ACCOUNT = "conchmodels"
KEY = base64.b64encode(hashlib.sha512(b"a key of the account").digest()).decode()
TENANT, CLIENT = "0b7f1f5e-7a3c-4c55-9d0e-3a8f6a0e1c11", "5c2f6c1a-41d4-4f8e-8f0e-9d2a7b6c3e22"
CLIENT_SECRET = "Abc8Q~value of a client secret"
VERSION = "2023-11-03"


def make_account_sas(permissions: str = "rl", *, services: str = "b", types: str = "sco", hours: float = 1) -> str:
    """Return a SAS of the account, which expires in so many hours.

    https://learn.microsoft.com/rest/api/storageservices/create-account-sas
    """
    end = _format_time(hours)
    lines = (ACCOUNT, permissions, services, types, "", end, "", "", VERSION, "", "")
    fields = {"sv": VERSION, "ss": services, "srt": types, "sp": permissions, "se": end}
    return urlencode({**fields, "sig": _sign("\n".join(lines))})


def make_container_sas(container: str, permissions: str = "rl", *, hours: float = 1) -> str:
    """Return a SAS of a container, which expires in so many hours.

    https://learn.microsoft.com/rest/api/storageservices/create-service-sas
    """
    end = _format_time(hours)
    lines = (permissions, "", end, f"/blob/{ACCOUNT}/{container}", "", "", "", VERSION, "c", *[""] * 7)
    fields = {"sv": VERSION, "sr": "c", "sp": permissions, "se": end}
    return urlencode({**fields, "sig": _sign("\n".join(lines))})


def make_token(seconds: int = 3600) -> str:
    """Return a token with the claims of one of Microsoft Entra ID, without its signature."""
    now = int(time.time())
    claims: dict[str, object] = {"aud": "https://storage.azure.com", "iss": f"https://sts.windows.net/{TENANT}/"}
    times: dict[str, object] = {"iat": now, "nbf": now - 60, "exp": now + seconds}
    return ".".join((_encode({"alg": "RS256", "typ": "JWT"}), _encode(claims | times), "c2lnbmF0dXJl"))


def _format_time(hours: float) -> str:
    return (dt.datetime.now(dt.UTC) + dt.timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _sign(text: str) -> str:
    return base64.b64encode(hmac.digest(base64.b64decode(KEY), text.encode(), "sha256")).decode()


def _encode(fields: dict[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")
