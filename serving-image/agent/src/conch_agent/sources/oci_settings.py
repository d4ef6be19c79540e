"""The settings of a registry in the storage Secret.

The login is that of a Secret of the type `kubernetes.io/dockerconfigjson`, which users have for their images. It is
bound to a host, so that another registry in storageUri does not get it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final

from pydantic import BaseModel, Field, ValidationError

from conch_agent.sources.answer import to_one_line
from conch_agent.sources.network import NETWORK_KEYS, NetworkSettings
from conch_agent.sources.oci_uri import Artifact, normalize_host
from conch_agent.sources.secret_settings import (
    WRITE_SWITCH,
    SettingKey,
    WrongFormError,
    parse_switch,
    parse_values,
)
from conch_agent.sources.storage_secret import build_invalid_secret

LOGINS_KEY: Final = ".dockerconfigjson"
_CREATE: Final = "Create the Secret with kubectl create secret docker-registry"


class DockerLogin(BaseModel):
    """An entry of `auths`. `auth` is `user:password` in base64."""

    auth: str = ""
    username: str = ""
    password: str = ""


class _DockerConfig(BaseModel):
    """The part of Docker's config.json that has logins, by address of the registry."""

    auths: Annotated[dict[str, DockerLogin], Field(min_length=1)]


@dataclass(frozen=True)
class Login:
    """User and password of a registry."""

    user: str
    password: str

    @property
    def header(self) -> dict[str, str]:
        """The header of basic authentication (RFC 7617)."""
        return {"Authorization": f"Basic {base64.b64encode(f'{self.user}:{self.password}'.encode()).decode()}"}


@dataclass(frozen=True)
class OciSettings(NetworkSettings):
    """The settings of a registry.

    Attributes:
        logins: Entries of `.dockerconfigjson` by address of the registry.
        plain_http: True for a registry without TLS.
    """

    logins: Mapping[str, DockerLogin] = field(default_factory=dict)
    plain_http: bool = False


def _parse_logins(text: str) -> Mapping[str, DockerLogin]:
    try:
        return _DockerConfig.model_validate_json(text).auths
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the text"
        problem = f"is no configuration of Docker ({place}: {first['msg']})"
    raise WrongFormError(problem)


KEYS: Final[Mapping[str, SettingKey]] = {
    LOGINS_KEY: SettingKey("logins", _parse_logins, _CREATE),
    "OCI_PLAIN_HTTP": SettingKey("plain_http", parse_switch, WRITE_SWITCH),
    **NETWORK_KEYS,
}


def parse_settings(secret: Mapping[str, str]) -> OciSettings:
    """Return the settings of a storage Secret.

    Args:
        secret: Values of the Secret by key.

    Raises:
        Failure: InvalidSecret with the key, its value unless that is secret, and the remedy.
    """
    return OciSettings(**parse_values(secret, KEYS))


def find_login(logins: Mapping[str, DockerLogin], artifact: Artifact) -> Login | None:
    """Return the login of a registry; None: there is none. Of several, the one with the longest path is used.

    Args:
        logins: Entries by address: a host, also with a path of its repositories, or a URL as Docker writes it.
        artifact: The artifact.

    Raises:
        Failure: InvalidSecret: the entry has no user and password.

    >>> find_login({"https://index.docker.io/v1/": DockerLogin(auth="bWU6c2VjcmV0")}, Artifact("docker.io", "a/b", "1"))
    Login(user='me', password='secret')
    """
    places = {address: parse_address(address) for address in logins}
    parts = artifact.name.split("/")
    matching = {
        address: path
        for address, (host, path) in places.items()
        if host == artifact.host and parts[: len(path)] == list(path)
    }
    if not matching:
        return None
    address = max(matching, key=lambda each: len(matching[each]))
    return _read_login(address, logins[address])


def parse_address(address: str) -> tuple[str, tuple[str, ...]]:
    """Return host and path of an address. The path of Docker's URLs is the version of its API, and none.

    Args:
        address: The address of a login, as Docker writes it.
    """
    host, *path = address.removeprefix("https://").removeprefix("http://").rstrip("/").split("/")
    return normalize_host(host), tuple(path) if path not in (["v1"], ["v2"]) else ()


def _read_login(address: str, entry: DockerLogin) -> Login:
    if entry.username and entry.password:
        return Login(entry.username, entry.password)
    try:
        user, colon, password = base64.b64decode(entry.auth, validate=True).decode().partition(":")
    except ValueError:
        problem = f"has an auth of {address[:200]!r} that is not user:password in base64"
        raise build_invalid_secret(LOGINS_KEY, problem, _CREATE) from None
    if not (user and colon and password):
        problem = (
            f"has no user and password of {address[:200]!r}, as after a login whose password another program keeps"
        )
        raise build_invalid_secret(LOGINS_KEY, problem, _CREATE)
    return Login(user, password)


def describe_login(login: Login | None, settings: OciSettings, artifact: Artifact) -> str:
    """Return the remedy for a denial, a sentence without its full stop.

    Args:
        login: The login that was sent; None: requests were anonymous.
        settings: The settings.
        artifact: The artifact.
    """
    if login:
        return f"Correct user and password of {artifact.host} in {LOGINS_KEY} of the storage Secret, or their rights"
    if settings.logins:
        hosts = to_one_line(", ".join(sorted(settings.logins)))
        return f"Add a login of {artifact.host} to {LOGINS_KEY} of the storage Secret, which has those of {hosts}"
    return (
        f"Write a login of {artifact.host} as {LOGINS_KEY} into the Secret of storage.secretRef (kubectl create secret"
        " docker-registry)"
    )
