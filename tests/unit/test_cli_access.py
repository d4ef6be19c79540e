"""Commands report invalid kubeconfigs, names and manifests in a sentence, never with a traceback."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from conch.api.kinds import INFERENCE_SERVICE
from conch.cli.main import cli

SERVICE = {
    "apiVersion": "conch.dev/v1alpha1",
    "kind": "InferenceService",
    "metadata": {"name": "magika"},
    "spec": {"predictor": {"model": {"modelFormat": {"name": "onnx"}, "storageUri": "s3://models/magika"}}},
}


def build_config(server: str = "https://127.0.0.1:1", **cluster: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        "users": [{"name": "c", "user": {"token": "t"}}],
    }


def run(*words: str, text: str | None = None) -> tuple[int, str]:
    done = CliRunner().invoke(cli, words, input=text)
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    assert "Traceback" not in done.output
    return done.exit_code, done.output


def build_without(field: str) -> dict[str, Any]:
    return {key: value for key, value in build_config().items() if key != field}


PEM = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCm5vbmUKLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo="
BROKEN: dict[str, tuple[str | bytes, str]] = {
    "no YAML": ("{[", "is not YAML"),
    "binary": (b"\xff\xfe\x00", "is not YAML"),
    "deep": ("[" * 5000, "is not YAML"),
    "empty": ("", "is empty"),
    "only a comment": ("# nothing\n", "is empty"),
    "a word": ("hello", "expected clusters, contexts and users"),
    "a list": ("- a", "expected clusters, contexts and users"),
    "clusters: a word": (
        json.dumps({**build_config(), "clusters": "c"}),
        "is not a list of entries with a name",
    ),
    "a cluster without a name": (json.dumps({**build_config(), "clusters": [{}]}), "is not a list of entries"),
    "no clusters": (json.dumps(build_without("clusters")), "cannot be used"),
    "no users": (json.dumps(build_without("users")), "cannot be used"),
    "no contexts": (json.dumps(build_without("contexts")), "cannot be used"),
    "no current context": (json.dumps(build_without("current-context")), "cannot be used"),
    "CA data: no base64": (
        json.dumps(build_config(**{"certificate-authority-data": "!"})),
        "cannot be used",
    ),
    "CA data: no certificate": (
        json.dumps(build_config(**{"certificate-authority-data": PEM})),
        "cannot be used",
    ),
    "a CA file that is not there": (
        json.dumps(build_config(**{"certificate-authority": "/no/ca"})),
        "cannot be used",
    ),
    "a server that is a number": (
        json.dumps({**build_config(), "clusters": [{"name": "c", "cluster": 1}]}),
        "cannot",
    ),
    "a server that is no address": (json.dumps(build_config("https://[::1")), "; "),
    "no server there": (
        json.dumps(build_config()),
        "the API server at https://127.0.0.1:1 does not answer (Connect call",
    ),
}


@pytest.mark.parametrize(("content", "expected"), BROKEN.values(), ids=BROKEN)
def test_a_kubeconfig_that_leads_nowhere_is_an_error_in_one_sentence(
    tmp_path: Path, content: str | bytes, expected: str
) -> None:
    file = tmp_path / "config"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    code, output = run("status", "magika", "--kubeconfig", str(file))
    assert (code, output.count("\n")) == (1, 1), output
    assert expected in output
    assert "ClientConnector" not in output
    assert "Error(" not in output


def test_a_missing_kubeconfig_is_named(tmp_path: Path) -> None:
    _, output = run("status", "magika", "--kubeconfig", str(tmp_path / "none"))
    assert f"there is no kubeconfig {tmp_path}/none" in output


@pytest.fixture
def web_server() -> Iterator[str]:
    """A web server that is no API server."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>welcome</html>")

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_web_server_that_is_no_api_server_is_named(tmp_path: Path, web_server: str) -> None:
    file = tmp_path / "config"
    file.write_text(json.dumps(build_config(web_server)))
    code, output = run("status", "magika", "--kubeconfig", str(file))
    assert code == 1
    assert f"{web_server} answers with HTTP status 200 and no JSON object" in output


def test_a_server_that_closes_connections_does_not_answer(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            with contextlib.suppress(OSError):  # until the listener is closed
                while True:
                    listener.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        file = tmp_path / "config"
        file.write_text(json.dumps(build_config(f"http://127.0.0.1:{listener.getsockname()[1]}")))
        code, output = run("status", "magika", "--kubeconfig", str(file))
    assert code == 1
    assert "does not answer" in output


NAMES = ["..", ".", "a/b", "a%2f", "a b", "Magika", "magika?x=1", "magika#", "", "-", "magika-", "a" * 254, "ä"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", ["status", "history", "promote"])
def test_a_name_that_no_object_has_reaches_no_server(command: str, name: str) -> None:
    code, output = run(command, "--kubeconfig", "/no/config", "--", name)
    assert code == 2
    assert "is not a name" in output
    code, output = run(command, "magika", "--kubeconfig", "/no/config", "--namespace", name)
    assert code == 2
    assert "is not a name" in output


def test_a_path_has_only_names() -> None:
    assert INFERENCE_SERVICE.path("a", "b?c").endswith("/namespaces/a/inferenceservices/b%3Fc")
    for name in ("..", ".", "a/b", "a%2e"):
        with pytest.raises(ValueError, match="is no name of an object"):
            INFERENCE_SERVICE.path("default", name)
        with pytest.raises(ValueError, match="is no name of an object"):
            INFERENCE_SERVICE.path(name)


def run_plan(text: str) -> tuple[int, str]:
    return run("plan", "--filename", "-", text=text)


def test_a_plan_of_a_list_covers_its_items() -> None:
    other = {**SERVICE, "metadata": {"name": "yolo"}}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
    inner = {"apiVersion": "conch.dev/v1alpha1", "kind": "InferenceServiceList", "items": [other]}
    for text in (yaml.dump, json.dumps):
        code, output = run_plan(text({"apiVersion": "v1", "kind": "List", "items": [config, SERVICE, inner]}))
        assert code == 0, output
        assert "default/magika" in output
        assert "default/yolo" in output


def test_plan_reads_surrogate_pairs_of_json_and_dates_of_yaml() -> None:
    service = {**SERVICE, "metadata": {"name": "magika", "annotations": {"conch.dev/change-cause": "😀"}}}
    assert run_plan(json.dumps(service))[0] == 0
    dated = yaml.dump(SERVICE).replace("metadata:", "metadata:\n  annotations: {made: '2026-01-01'}")
    code, output = run_plan(dated.replace("'2026-01-01'", "2026-01-01"))
    assert code == 0, output


MANIFESTS = {
    "half of a pair": (r'{"kind": "InferenceService", "metadata": {"name": "\ud83d"}}', "is not a manifest"),
    "binary": ("!!binary aGVsbG8=", "is not a manifest"),
    "no number": (yaml.dump({**SERVICE, "spec": float("nan")}), "is not a manifest"),
    "deep": ("[" * 5000, "is not a manifest"),
    "an empty list": ("kind: List\nitems: []", "has no InferenceService"),
    "a list of words": ("kind: List\nitems: [a, 1, null]", "has no InferenceService"),
    "a list without items": ("kind: List", "has no InferenceService"),
    "empty": ("", "has no InferenceService"),
    "a name that climbs": (yaml.dump({**SERVICE, "metadata": {"name": "../a"}}), "is not a name"),
    "a name that is a number": (yaml.dump({**SERVICE, "metadata": {"name": 1}}), "is not a name"),
    "a namespace that climbs": (yaml.dump({**SERVICE, "metadata": {"name": "a", "namespace": ".."}}), "is not a name"),
    "a spec that is a word": (yaml.dump({**SERVICE, "spec": "a"}), "spec"),
    "annotations that are a list": (yaml.dump({**SERVICE, "metadata": {"name": "a", "annotations": [1]}}), "annot"),
}


@pytest.mark.parametrize(("text", "expected"), MANIFESTS.values(), ids=MANIFESTS)
def test_an_invalid_manifest_is_an_error_in_a_sentence(text: str, expected: str) -> None:
    code, output = run_plan(text)
    assert code == 1
    assert expected in output
