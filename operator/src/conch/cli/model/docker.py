"""The logins of registries that Docker's configuration has, or the programs in which Docker keeps their passwords.

Source: Docker's config.json, with `auths`, `credHelpers` and `credsStore`, and the protocol of
docker/docker-credential-helpers: `docker-credential-<name> get` reads an address and writes JSON.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, Field, ValidationError

from conch.cli.options import CommandError
from conch_agent.sources.oci_settings import DockerLogin, parse_address
from conch_agent.sources.oci_uri import DOCKER_HUB, normalize_host

_HUB_ADDRESS: Final = "https://index.docker.io/v1/"  # that Docker writes for Docker Hub
_SECONDS: Final = 60  # of a program, which may have a person unlock it
_TOKEN: Final = "<token>"  # noqa: S105  the user of an identity token
_LOG_IN: Final = "log in again (docker login)"


class _Config(BaseModel):
    """The part of Docker's configuration about logins."""

    auths: dict[str, dict[str, Any]] = {}
    helpers: dict[str, str] = Field({}, alias="credHelpers")
    store: str = Field("", alias="credsStore")


class _Credentials(BaseModel):
    """The answer of a program."""

    user: str = Field(alias="Username")
    password: str = Field(alias="Secret")


def read_logins(uri: str) -> str:
    """Return the logins of a registry as a Secret of the type kubernetes.io/dockerconfigjson; empty: there are none.

    Args:
        uri: oci://host/name:tag.

    Raises:
        CommandError: The configuration, or a program that it names, cannot be read.
    """
    file = _find_file()
    if file is None or not file.is_file():
        return ""
    host = normalize_host(uri.partition("://")[2].partition("/")[0])
    try:
        config = _Config.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        problem = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
        raise CommandError(f"{file} is no configuration of Docker ({problem}); correct it, or {_LOG_IN}") from None
    own = {address: entry for address, entry in config.auths.items() if parse_address(address)[0] == host}
    program = next((name for each, name in config.helpers.items() if parse_address(each)[0] == host), "")
    logins = {address: entry for address, entry in own.items() if entry.get("auth") or entry.get("username")}
    if not logins and (program := program or (config.store if own else "")):
        logins = _run_program(program, _HUB_ADDRESS if host == DOCKER_HUB else host, file)
    if any(entry.get("identitytoken") for entry in logins.values()):
        raise _build_token_error(host, file)
    return json.dumps({"auths": logins}) if logins else ""


def _find_file() -> Path | None:
    """Return the path of the configuration; None: the user has no home."""
    if folder := os.environ.get("DOCKER_CONFIG"):
        return Path(folder) / "config.json"
    try:
        return Path.home() / ".docker/config.json"
    except RuntimeError:
        return None


def _run_program(name: str, address: str, file: Path) -> dict[str, dict[str, Any]]:
    """Return the login that a program keeps; empty: it has none."""
    program = f"docker-credential-{name}"
    try:
        if not re.fullmatch(r"[\w.-]+", name):
            raise FileNotFoundError
        done = subprocess.run(
            [program, "get"], input=address, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, UnicodeError, subprocess.TimeoutExpired):
        raise CommandError(
            f"{program!r}, in which {file} keeps the login of {address}, does not run; install it, or {_LOG_IN}"
        ) from None
    if done.returncode:
        return {}
    try:
        found = _Credentials.model_validate_json(done.stdout)
    except ValidationError:
        raise CommandError(f"{program} answers no login of {address}; {_LOG_IN}") from None
    if found.user == _TOKEN:
        raise _build_token_error(address, file)
    auth = base64.b64encode(f"{found.user}:{found.password}".encode()).decode()
    return {address: DockerLogin(auth=auth).model_dump()}


def _build_token_error(address: str, file: Path) -> CommandError:
    return CommandError(
        f"{file} has an identity token of {address}, and agents log in with a user and a password; log in with these"
        " (docker login --username)"
    )
