"""The logins of registries in Docker's configuration, and in the programs that it names."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from conch.cli.model.docker import read_logins
from conch.cli.options import CommandError

HOST = "registry.example:5000"
URI = f"oci://{HOST}/team/model:v1"
LOGIN = {"auth": "dXNlcjpwYXNz"}  # user:pass


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration's file, and a PATH that begins with the folder `bin`."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path / "config.json"


def _write_program(docker: Path, answer: str, status: int = 0) -> None:
    """Write a program that keeps passwords. It writes the address that it reads into the file `address`."""
    folder = docker.parent
    (folder / "answer").write_text(answer)
    program = folder / "bin/docker-credential-tests"
    program.write_text(f'#!/bin/sh\ntest "$1" = get && cat > {folder}/address && cat {folder}/answer; exit {status}\n')
    program.chmod(0o755)


def _build_credentials(user: str = "user") -> str:
    return json.dumps({"ServerURL": "x", "Username": user, "Secret": "pass"})


@pytest.mark.parametrize(
    "config",
    [{}, {"auths": {}}, {"credsStore": "nothing"}, {"auths": {"other.example": LOGIN}}, {"auths": {HOST: {}}}],
)
def test_a_configuration_without_a_login_of_the_registry(docker: Path, config: dict[str, object]) -> None:
    docker.write_text(json.dumps(config))
    assert not read_logins(URI)


def test_a_registry_that_is_none(docker: Path) -> None:
    docker.write_text(json.dumps({"auths": {HOST: LOGIN}}))
    for uri in ("oci://[", "oci://", "oci:///x:v1"):
        assert not read_logins(uri)


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not read_logins(URI)
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text(json.dumps({"auths": {f"https://{HOST}/v2/": LOGIN, "b": LOGIN}}))
    assert json.loads(read_logins(URI)) == {"auths": {f"https://{HOST}/v2/": LOGIN}}, "those of others are not read"


@pytest.mark.parametrize(
    "config",
    [
        {"auths": {HOST: {}}, "credsStore": "tests"},
        {"credHelpers": {HOST: "tests"}, "credsStore": "nothing"},
        {"auths": {HOST: {"email": "x"}}, "credHelpers": {f"https://{HOST}": "tests"}},
    ],
)
def test_a_login_that_a_program_keeps(docker: Path, config: dict[str, object]) -> None:
    docker.write_text(json.dumps(config))
    _write_program(docker, _build_credentials())
    assert json.loads(read_logins(URI))["auths"][HOST]["auth"] == LOGIN["auth"]
    assert (docker.parent / "address").read_text() == HOST


def test_the_address_of_docker_hub(docker: Path) -> None:
    address = "https://index.docker.io/v1/"
    docker.write_text(json.dumps({"auths": {address: {}}, "credsStore": "tests"}))
    _write_program(docker, _build_credentials())
    assert address in json.loads(read_logins("oci://docker.io/team/model:v1"))["auths"]
    assert (docker.parent / "address").read_text() == address


def test_a_program_that_has_no_login(docker: Path) -> None:
    docker.write_text(json.dumps({"credHelpers": {HOST: "tests"}}))
    _write_program(docker, "credentials not found in native keychain", 1)
    assert not read_logins(URI)


UNREADABLE = {
    "empty": ("", "is no configuration of Docker"),
    "a list": ("[]", "is no configuration of Docker"),
    "auths of another type": ('{"auths": 1}', "is no configuration of Docker (auths: "),
    "an identity token": ('{"auths": {"HOST": {"auth": "eDo=", "identitytoken": "t"}}}', "has an identity token of"),
    "a program that is not there": ('{"credHelpers": {"HOST": "nothing"}}', "'docker-credential-nothing', in which"),
    "a program elsewhere": ('{"credHelpers": {"HOST": "../../bin/sh"}}', "does not run; install it"),
    "a program that answers a page": ('{"credHelpers": {"HOST": "tests"}}', "docker-credential-tests answers no login"),
    "no text": ("\udcff", "is no configuration of Docker"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_has_no_login(docker: Path, case: str) -> None:
    text, words = UNREADABLE[case]
    docker.write_bytes(text.replace("HOST", HOST).encode(errors="surrogateescape"))
    _write_program(docker, '{"Username": "user", "secret": "pass"}')
    with pytest.raises(CommandError) as caught:
        read_logins(URI)
    assert words in caught.value.message
    assert "docker login" in caught.value.message
    assert "pass" not in caught.value.message.replace("a password", "")


def test_a_token_that_a_program_keeps(docker: Path) -> None:
    docker.write_text(json.dumps({"credHelpers": {HOST: "tests"}}))
    _write_program(docker, _build_credentials("<token>"))
    with pytest.raises(CommandError, match="has an identity token"):
        read_logins(URI)
