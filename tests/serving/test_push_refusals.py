"""What `kubectl conch model push` refuses, and what a target refuses: one sentence with the value and the remedy."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner

from conch.cli.main import cli
from conch.cli.model.inspecting import read_content
from conch.cli.model.manifest import File
from conch.cli.model.push import http
from conch.cli.model.push import registry as registry_push
from conch.cli.model.push import store as store_push
from conch.cli.model.push.plan import Upload, plan_upload
from conch.cli.options import CommandError
from conch_agent.sources.oci_documents import MOST_LAYERS
from tests.serving.registry import Registry
from tests.serving.store import Store
from tests.support.plugin import PluginError, run_plugin
from tests.support.ports import free_port
from tests.support.web import serve_apps

PASSWORD = "pa55word"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model/data").mkdir(parents=True)
    (tmp_path / "model/model.py").write_text("class TritonPythonModel: ...\n")
    (tmp_path / "model/data/weights.bin").write_bytes(os.urandom(9_000_000))  # more than a part of an upload
    return tmp_path / "model"


@pytest.fixture
def environment(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variables of the plugin for the store and the registry."""
    for variable, value in {**store.secret, "OCI_PLAIN_HTTP": "true"}.items():
        monkeypatch.setenv(variable, value)


def _pack(folder: Path) -> Path:
    archive = folder.with_name("model.tar.zst")
    result = CliRunner().invoke(cli, ["model", "pack", str(folder), "--to", str(archive)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return archive


def _push(source: Path, target: str, **environment: str) -> Any:
    arguments = ["model", "push", str(source), target]
    return CliRunner().invoke(cli, arguments, env=environment, catch_exceptions=False)


def _refuse(source: Path, target: str, **environment: str) -> str:
    result = _push(source, target, **environment)
    assert result.exit_code == 1, result.output
    assert not result.stdout
    assert result.stderr.count("\n") == 1, result.stderr
    assert PASSWORD not in result.stderr
    assert "storage Secret" not in result.stderr
    assert all(letter.isprintable() for letter in result.stderr.strip())
    return str(result.stderr)


def _ignore(_: int) -> None:
    """Count nothing."""


CHANGES: dict[str, dict[str, object]] = {
    "of the same size": {"sha256": hashlib.sha256(b"other").hexdigest()},
    "that grows": {"size": 100},
    "that shrinks": {"size": 10_000_000},
}


@pytest.mark.parametrize("case", CHANGES)
@pytest.mark.parametrize("kind", ["s3", "oci", "http"])
@pytest.mark.usefixtures("environment")
def test_a_file_that_changes_while_it_is_uploaded(
    kind: str, case: str, folder: Path, store: Store, registry: Registry
) -> None:
    content, name = read_content(folder), f"changed-{case.replace(' ', '-')}"

    def push(change: Callable[[File], File]) -> None:
        upload = plan_upload(folder, tuple(map(change, content.files)))
        if kind == "s3":
            asyncio.run(store_push.push(upload, f"s3://pushes/{name}", _ignore))
        elif kind == "oci":
            asyncio.run(registry_push.push(upload, None, f"oci://{registry.host}/team/{name}:v1", _ignore))
        else:
            weights = next(file for file in upload.files if "weights" in file.path)
            only = Upload(folder / "data", (weights.model_copy(update={"path": "weights.bin"}),))
            asyncio.run(http.push(only, f"{store.files}/{name}/weights.bin", _ignore))

    with pytest.raises(CommandError, match=r"weights\.bin changed while it was uploaded; run the command again"):
        push(lambda file: file.model_copy(update=CHANGES[case] if "weights" in file.path else {}))
    push(lambda file: file)


def test_a_prefix_with_other_files(folder: Path, store: Store) -> None:
    store.put("pushes", {"taken/old.onnx": b"x", "taken/.hidden": b"x", "take-place/x": b"x"})
    message = _refuse(folder, "s3://pushes/taken", **store.secret)
    assert "has other files, which an agent would fetch too: old.onnx; push to a prefix of its own" in message
    result = _push(folder, "s3://pushes/take", **store.secret)
    assert result.exit_code == 0, result.output


def test_a_store_that_refuses_ends_the_command_with_1(folder: Path, store: Store) -> None:
    """Its client has threads, which aborted the process while other files were sent."""
    for number in range(20):
        (folder / f"file-{number}").write_text("x")
    address = f"127.0.0.1:{free_port()}"
    away = {**store.secret, "AWS_ENDPOINT_URL": f"http://{address}"}
    with pytest.raises(PluginError, match=f"^Error: Unreachable: .*nothing listens at {address}"):
        run_plugin("model", "push", folder, "s3://pushes/away", environment=away)
    denied = {**store.secret, "AWS_SECRET_ACCESS_KEY": "wrong"}
    with pytest.raises(PluginError, match=r"^Error: AccessDenied: .*AWS_SECRET_ACCESS_KEY in the environment"):
        run_plugin("model", "push", folder, "s3://pushes/denied", environment=denied)


SETTINGS = {
    "no URL": ({"AWS_ENDPOINT_URL": "http://["}, "AWS_ENDPOINT_URL in the environment is"),
    "no scheme": ({"AWS_ENDPOINT_URL": "store"}, "Write https://store"),
    "a line break": (
        {"AWS_SECRET_ACCESS_KEY": f"{PASSWORD}\nx"},
        "AWS_SECRET_ACCESS_KEY in the environment holds a line",
    ),
    "half of the credentials": (
        {"AWS_SECRET_ACCESS_KEY": ""},
        "AWS_SECRET_ACCESS_KEY in the environment is absent",
    ),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_that_are_none(folder: Path, store: Store, case: str) -> None:
    environment, words = SETTINGS[case]
    assert words in _refuse(folder, "s3://pushes/settings", **{**store.secret, **environment})


def test_no_credentials_at_all(folder: Path, store: Store) -> None:
    environment = {name: value for name, value in store.secret.items() if "KEY" not in name}
    environment["AWS_METADATA_ENDPOINT"] = f"http://127.0.0.1:{free_port()}"
    message = _refuse(folder, "s3://pushes/anonymous", **environment)
    assert "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment" in message


@pytest.mark.parametrize(
    "target", ["s3://", "s3://b", "s3://bucket/a?b", "s3://bucket/a#b", "s3://bucket/a//b", "s3://u:p@bucket/a", ""]
)
def test_targets_that_are_none(folder: Path, target: str, store: Store) -> None:
    assert f"{target!r}: expected s3://" in _refuse(folder, target, **store.secret)


def test_an_artifact_with_more_files_than_agents_take(registry: Registry, tmp_path: Path) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(MOST_LAYERS + 1):
        (many / str(number)).touch()
    message = _refuse(many, f"oci://{registry.host}/team/many:v1", OCI_PLAIN_HTTP="true")
    assert f"agents take {MOST_LAYERS} files" in message
    assert "so push to s3://" in message


LOCATIONS = ("", "http://[", "mailto:x", "ftp://host/x", "http://169.254.169.254/x", "https://\x9b31m/", "//[")


def test_a_registry_that_names_no_url_for_an_upload(folder: Path) -> None:
    locations = list(LOCATIONS)

    async def answer(request: web.Request) -> web.Response:
        if request.method == "HEAD":
            return web.Response(status=404)
        return web.Response(status=202, headers={"Location": locations[0]} if locations[0] else {})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    with serve_apps(app) as [url]:
        while locations:
            message = _refuse(folder, f"oci://{url.partition('://')[2]}/team/x:v1", OCI_PLAIN_HTTP="true")
            assert "for an upload; expected a URL of http://" in message, locations[0]
            locations.pop(0)


def test_what_is_pushed_to_a_url(folder: Path, store: Store) -> None:
    archive, variable = _pack(folder), "HTTPS_AUTHORIZATION"
    (folder.parent / "x.onnx").write_text("x")
    (folder.parent / "x.tar.zst").write_text("x")
    assert "is a file; expected a folder, or an archive" in _refuse(folder.parent / "x.onnx", f"{store.files}/x.onnx")
    assert "is no tar file" in _refuse(folder.parent / "x.tar.zst", f"{store.files}/x.tar.zst")
    with_user = store.files.replace("://", f"://user:{PASSWORD}@")
    assert f"set {variable}" in _refuse(archive, f"{with_user}/m.tar.zst")
    assert f"{variable} has a line break" in _refuse(archive, f"{store.files}/m", **{variable: f"{PASSWORD}\nx"})
    for target in ("http://", "http://host", "http://host/folder/", "http://[/x"):
        assert "https://host/path.tar.zst" in _refuse(archive, target)
    closed = f"http://127.0.0.1:{free_port()}/m.tar.zst"
    message = _refuse(archive, f"{closed}?sig={PASSWORD}")
    assert f"{closed}: " in message
    assert "correct the URL" in message


def test_a_server_that_refuses_a_put(folder: Path) -> None:
    async def answer(request: web.Request) -> web.Response:
        await request.read()
        text = f"\x1b[31mno\n {request.url}" if request.method == "PUT" else ""
        return web.Response(status=403, text=text)

    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{path:.*}", answer)
    with serve_apps(app) as [url]:
        message = _refuse(_pack(folder), f"{url}/m.tar.zst?X-Amz-Signature={PASSWORD}")
    assert f"{url}/m.tar.zst: the server answered 403 (?[31mno " in message
    assert "set HTTPS_AUTHORIZATION" in message
