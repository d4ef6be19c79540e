"""Pushes to registries with a login, which the plugin reads where `docker login` has written it."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.registry import PASSWORD, USER, Registry, build_secret, serve_tokens
from tests.support.plugin import PluginError, run_plugin

WRONG = "another-password"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that requires a user and a password (basic authentication)."""
    with Registry.with_password(tmp_path_factory.mktemp("registry")) as served:
        yield served


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("model")
    (root / "plain").mkdir()
    (root / "plain/model.py").write_text("class TritonPythonModel: ...\n")
    run_plugin("model", "pack", root / "plain", "--to", root / "packed", "--version", "1")
    return root / "packed"


def _write_config(folder: Path, text: str) -> dict[str, str]:
    """Write Docker's configuration; return the variables of the plugin for it."""
    (folder / "docker").mkdir(exist_ok=True)
    (folder / "docker/config.json").write_text(text)
    return {"DOCKER_CONFIG": str(folder / "docker"), "OCI_PLAIN_HTTP": "true"}


def _build_config(host: str, password: str = PASSWORD) -> str:
    return build_secret(host, password=password)[".dockerconfigjson"]


def _push_and_inspect(model: Path, uri: str, environment: dict[str, str]) -> None:
    pushed = run_plugin("model", "push", model, uri, environment=environment)
    assert sorted(pushed["sent"]) == [".conch-manifest.json", "model.py"]
    again = run_plugin("model", "push", model, uri, environment=environment)
    assert (again["sent"], again["present"]) == ([], pushed["sent"])
    seen = run_plugin("model", "inspect", uri, environment=environment)
    assert ([file["path"] for file in seen["files"]], seen["version"]) == (["model.py"], "1")


def test_a_push_with_the_login_of_docker(model: Path, registry: Registry, tmp_path: Path) -> None:
    environment = _write_config(tmp_path, _build_config(registry.host))
    _push_and_inspect(model, f"oci://{registry.host}/team/basic:v1", environment)


def test_a_push_with_a_token_of_a_service(model: Path, tmp_path: Path) -> None:
    with (
        serve_tokens() as tokens,
        Registry(tmp_path / "registry", tokens.write_auth(tmp_path / "registry")) as registry,
    ):
        environment = _write_config(tmp_path, _build_config(registry.host))
        _push_and_inspect(model, f"oci://{registry.host}/team/token:v1", environment)
        assert {query["scope"] for query, _ in tokens.requests} == {
            "repository:team/token:pull,push",
            "repository:team/token:pull",
        }
        environment = _write_config(tmp_path, _build_config(registry.host, WRONG))
        message = _refuse(model, f"oci://{registry.host}/team/token:v2", environment)
    assert "Log in with a user who may push (docker login)" in message


def test_a_login_that_another_program_keeps(model: Path, registry: Registry, tmp_path: Path) -> None:
    program = tmp_path / "bin/docker-credential-tests"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho '{json.dumps({'Username': USER, 'Secret': PASSWORD})}'\n")
    program.chmod(0o755)
    environment = _write_config(tmp_path, json.dumps({"auths": {registry.host: {}}, "credsStore": "tests"}))
    environment["PATH"] = f"{program.parent}:{os.environ['PATH']}"
    _push_and_inspect(model, f"oci://{registry.host}/team/program:v1", environment)


def _refuse(model: Path, uri: str, environment: dict[str, str], command: str = "push") -> str:
    source = [model] if command == "push" else []
    with pytest.raises(PluginError) as caught:
        run_plugin("model", command, *source, uri, environment=environment)
    message = str(caught.value)
    assert message.startswith("Error: ")
    assert "Traceback" not in message
    for secret in (PASSWORD, WRONG, base64.b64encode(f"{USER}:{WRONG}".encode()).decode()):
        assert secret not in message
    assert "storage Secret" not in message
    assert "storage.secretRef" not in message
    return message


def test_a_login_that_the_registry_refuses(model: Path, registry: Registry, tmp_path: Path) -> None:
    uri = f"oci://{registry.host}/team/refused:v1"
    for text in (_build_config(registry.host, WRONG), "{}"):
        environment = _write_config(tmp_path, text)
        for command in ("push", "inspect"):
            message = _refuse(model, uri, environment, command)
            assert "docker login" in message, text
