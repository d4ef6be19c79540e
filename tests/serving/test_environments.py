"""Packages of a Python model: installed from wheels beside it or from an index, once for all pods of a claim."""

from __future__ import annotations

import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from conch_contract import ModelSource, Signature, Verification
from tests.serving.certificates import issued
from tests.serving.http_proxy import HttpProxy
from tests.serving.pod import Pod
from tests.serving.processes import Process, until
from tests.serving.store import Store
from tests.serving.test_formats import DOUBLE, X
from tests.support import bundles, signing
from tests.support.ports import free_port
from tests.support.relay import Relay
from tests.support.wheels import add_to_index, build_wheel

CONFIG = """
backend: "python"
parameters { key: "EXECUTION_ENV_PATH" value { string_value: "$$TRITON_MODEL_DIRECTORY/requirements.txt" } }
"""
FACTOR = build_wheel("factor", "3.0", {"factor.py": "FACTOR = 3"})


@dataclass(frozen=True)
class Index:
    """An index of packages behind a web server, which logs its requests."""

    folder: Path
    port: int
    server: Process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def downloads(self) -> int:
        """How many wheels were sent."""
        return self.server.log.read_text().count('.whl HTTP/1.1" 200')

    def add(self, wheel: tuple[str, bytes]) -> str:
        """Add a wheel; return its hash."""
        return add_to_index(self.folder, wheel[0].partition("-")[0], *wheel)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    folder, port = tmp_path / "index", free_port()
    folder.mkdir()
    command = [sys.executable, "-m", "http.server", "--bind=127.0.0.1", f"--directory={folder}", "--protocol=HTTP/1.1"]
    server = Process([*command, str(port)], tmp_path / "index.log", {"PATH": "/usr/bin:/bin", "PYTHONUNBUFFERED": "1"})
    index = Index(folder, port, server)
    until(lambda: "Serving" in server.log.read_text(), "the index listens", server)
    yield index
    server.kill()


@pytest.fixture
def two_pods(tmp_path: Path) -> Iterator[tuple[Pod, Pod]]:
    """Two pods that mount one claim."""
    (tmp_path / "claim").mkdir()
    pods = Pod(tmp_path / "first"), Pod(tmp_path / "second")
    for pod in pods:
        (pod.root / "cache").symlink_to(tmp_path / "claim")
    yield pods
    for pod in pods:
        pod.stop()


def put(store: Store, folder: str, requirements: str, *wheels: tuple[str, bytes], **files: str) -> ModelSource:
    """Upload a model that triples."""
    texts = {"model.py": DOUBLE, "config.pbtxt": CONFIG, "requirements.txt": requirements, **files}
    store.put("environments", {f"{folder}/{name}": text.encode() for name, text in texts.items()})
    store.put("environments", {f"{folder}/wheels/{name}": content for name, content in wheels})
    return ModelSource(name="m", format="python", storage_uri=f"s3://environments/{folder}")


def test_wheels_of_the_model_are_installed(store: Store, pod: Pod) -> None:
    pod.write_secret(store.secret)
    pod.write_manifest(put(store, "wheels", "factor==3.0  # a comment\n", FACTOR))
    pod.start()
    pod.until_ready()
    assert pod.infer("m", X)["y"] == [4.5, 6.0]


def test_wheels_of_a_claim_need_no_proxy(pod: Pod) -> None:
    """One that a platform adds, and that Conch does not support, is for the index alone."""
    folder = pod.root / "pvc" / "claim" / "m"
    (folder / "wheels").mkdir(parents=True)
    (folder / "model.py").write_text(DOUBLE)
    (folder / "config.pbtxt").write_text(CONFIG)
    (folder / "requirements.txt").write_text("factor==3.0\n")
    (folder / "wheels" / FACTOR[0]).write_bytes(FACTOR[1])
    pod.write_manifest(ModelSource(name="m", format="python", storage_uri="pvc://claim/m"))
    pod.start_agent(env={"https_proxy": "socks5://proxy:1080"})
    pod.start_triton()
    pod.until_ready()
    assert pod.infer("m", X)["y"] == [4.5, 6.0]


def test_wheels_without_a_signature_are_no_packages_of_a_signed_model(store: Store, pod: Pod, tmp_path: Path) -> None:
    """A signature may leave files out, which are then no files of the model: its packages need hashes."""
    folder, key = tmp_path / "model", bundles.make_key()
    (folder / "wheels").mkdir(parents=True)
    for name, text in {"model.py": DOUBLE, "config.pbtxt": CONFIG, "requirements.txt": "factor==3.0"}.items():
        (folder / name).write_text(text)
    signing.sign_folder(folder, key, ignored=["wheels"])
    (folder / "wheels" / FACTOR[0]).write_bytes(FACTOR[1])
    paths = [path for path in folder.rglob("*") if path.is_file()]
    store.put("environments", {f"signed/{path.relative_to(folder)}": path for path in paths})
    pod.write_secret(store.secret)
    pod.mount_keys("team", {"key.pub": bundles.write_public(key)})
    verify = Verification(signature=Signature(config_map="team"))
    pod.write_manifest(ModelSource(name="m", format="python", storage_uri="s3://environments/signed", verify=verify))
    pod.start_agent()
    assert "'factor==3.0' has no hash" in pod.until_reason("InvalidConfig").message


def test_an_index_sends_each_package_once_to_the_pods_of_a_claim(
    store: Store, index: Index, two_pods: list[Pod]
) -> None:
    first, second = two_pods
    digest = index.add(FACTOR)
    source = put(store, "claim", f"factor==3.0 \\\n    --hash={digest}\n")
    for pod in two_pods:
        pod.write_secret({**store.secret, "PIP_INDEX_URL": index.url})
        pod.write_manifest(source)
    first.start()
    first.until_ready()
    assert index.downloads == 1
    index.server.kill()
    second.start()
    second.until_ready()
    assert [pod.infer("m", X)["y"] for pod in two_pods] == [[4.5, 6.0]] * 2
    [file, other] = [pod.repository / "m/.environment/lib/python3.11/site-packages/factor.py" for pod in two_pods]
    assert file.samefile(other)


def test_packages_of_a_claim_have_all_their_files(store: Store, two_pods: list[Pod]) -> None:
    """Programs, hidden files, and one of the name that the agent's own has: no pod changes the file of another."""
    code = """
import subprocess
from pathlib import Path
HOME = Path(__file__).parent
FACTOR = int(subprocess.check_output([HOME / "bin/one"])) + int((HOME / "factor_data/.two").read_text())
"""
    files = {
        "factor.py": code,
        "factor_data/.two": "2",
        "conch-image.pth": "# of the package",
        "factor-5.0.data/scripts/one": "#!/bin/sh\necho 1\n",
    }
    own = {"environment/notes.txt": "of the model"}
    for number, pod in enumerate(two_pods):
        pod.write_secret(store.secret)
        pod.write_manifest(put(store, f"whole-{number}", "factor==5.0", build_wheel("factor", "5.0", files), **own))
        pod.start()
        pod.until_ready()
        assert pod.infer("m", X)["y"] == [4.5, 6.0]
        assert not pod.until_reported().warnings


def test_packages_beyond_the_limit_of_the_claim_are_installed_in_the_pod(
    store: Store, two_pods: list[Pod], tmp_path: Path
) -> None:
    pod, _ = two_pods
    wheel = build_wheel("factor", "6.0", {"factor.py": "FACTOR = 3", "large.bin": "0" * 200_000}, compressed=True)
    pod.write_secret(store.secret)
    pod.write_manifest(put(store, "large", "factor==6.0", wheel))
    pod.start_agent("--cache-bytes=100000")
    pod.start_triton()
    pod.until_ready()
    assert pod.infer("m", X)["y"] == [4.5, 6.0]
    [warning] = pod.until_reported().warnings
    assert "do not fit into the sizeLimit of 100000 bytes" in warning.message
    [folder] = (tmp_path / "claim/.conch-cache/pods").iterdir()
    assert [path.name for path in (folder / "m").iterdir()] == ["parts"]


def test_packages_that_no_marker_selects(store: Store, two_pods: list[Pod]) -> None:
    """The environment is empty then, which is none of an error: another image may need them."""
    for pod in two_pods:
        pod.write_secret(store.secret)
        text = {"model.py": DOUBLE, "factor.py": "FACTOR = 3"}
        pod.write_manifest(put(store, "marker", "absent==1; python_version < '3'", **text))
        pod.start()
        pod.until_ready()
        assert not pod.until_reported().warnings


def test_what_cannot_be_installed_is_reported_until_it_can(store: Store, index: Index, pod: Pod) -> None:
    wrong = "sha256:" + "0" * 64
    index.add(FACTOR)
    pod.write_secret({**store.secret, "PIP_INDEX_URL": index.url})
    pod.write_manifest(put(store, "absent", "factor==4.0\n"))
    pod.start()
    message = pod.until_reason("EnvironmentFailed").message
    assert message.startswith(
        "s3://environments/absent: requirements.txt: pip cannot install the packages from the index"
    )
    assert "No matching distribution found for factor==4.0" in message

    pod.write_manifest(put(store, "wrong", f"factor==3.0 --hash={wrong}\n"))
    until(lambda: "THESE PACKAGES DO NOT MATCH THE HASHES" in pod.model().message, "the hash is wrong", pod.agent)
    pod.write_manifest(put(store, "option", "--index-url https://example.com\nfactor==3.0\n"))
    assert "line 1: '--index-url https://example.com' is an option." in pod.until_reason("InvalidConfig").message

    index.add(build_wheel("factor", "4.0", {"factor.py": "FACTOR = 4"}))
    pod.write_manifest(put(store, "absent", "factor==4.0\n"))
    pod.until_ready()
    assert pod.infer("m", X)["y"] == [6.0, 8.0]
    downloads = index.downloads
    pod.write_manifest(put(store, "other", "factor==4.0\n", **{"model.py": DOUBLE.replace("FACTOR)", "-FACTOR)")}))
    until(lambda: pod.infer("m", X)["y"] == [-6.0, -8.0], "the new model serves", pod.agent)
    assert index.downloads == downloads, "its packages are the same"


def test_the_password_of_an_index_is_in_no_message_and_no_list_of_processes(
    store: Store, index: Index, pod: Pod
) -> None:
    line = Relay(index.port)
    line.flows.clear()
    address = f"127.0.0.1:{line.port}/"
    pod.write_secret({**store.secret, "PIP_INDEX_URL": f"http://user:hunter2@{address}"})
    pod.write_manifest(put(store, "password", "factor==3.0\n"))
    pod.start_agent()
    until(lambda: line.connections, "pip is at work", pod.agent)
    commands = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True, check=True).stdout
    assert "-m pip" in commands
    assert address not in commands
    line.refuses = True
    line.flows.set()
    message = pod.until_reason("EnvironmentFailed").message
    assert "hunter2" not in message
    assert "after connection broken by" in message

    pod.write_secret({**store.secret, "PIP_INDEX_URL": "ftp://host"})
    pod.write_manifest(put(store, "password-2", "factor==3.0\n"))
    assert pod.until_reason("InvalidSecret").message.startswith("PIP_INDEX_URL in the storage Secret is no URL. Write")
    line.close()


def test_an_index_with_a_certificate_of_its_own_behind_a_proxy(store: Store, pod: Pod, tmp_path: Path) -> None:
    add_to_index(tmp_path / "index", "factor", *FACTOR)
    certificate, key, authority = issued(tmp_path / "tls")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "index"))
    server = ThreadingHTTPServer(("127.0.0.1", free_port()), handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    proxy = HttpProxy(tmp_path / "proxy")
    network = {"PIP_INDEX_URL": f"https://127.0.0.1:{server.server_port}/", "HTTPS_PROXY": proxy.url}
    try:
        pod.write_secret({**store.secret, **network})
        pod.write_manifest(put(store, "private", "factor==3.0\n"))
        pod.start()
        assert "CERTIFICATE_VERIFY_FAILED" in pod.until_reason("EnvironmentFailed").message
        pod.write_secret({**store.secret, **network, "ca.crt": authority.read_text()})
        pod.until_ready()
        assert pod.infer("m", X)["y"] == [4.5, 6.0]
        until(lambda: proxy.count(server.server_port), "the proxy has served the index", proxy.process)
    finally:
        proxy.process.kill()
        server.shutdown()


def test_an_agent_that_is_killed_while_it_installs_begins_again(store: Store, index: Index, pod: Pod) -> None:
    index.add(FACTOR)
    line = Relay(index.port)
    line.flows.clear()
    pod.write_secret({**store.secret, "PIP_INDEX_URL": f"http://127.0.0.1:{line.port}/"})
    pod.write_manifest(put(store, "killed", "factor==3.0\n"))
    pod.start()
    until(lambda: line.connections, "pip is at work", pod.agent)
    assert pod.agent
    pod.agent.kill()
    line.flows.set()
    pod.start_agent()
    pod.until_ready()
    assert pod.infer("m", X)["y"] == [4.5, 6.0]
    line.close()


def test_a_file_that_the_parameter_names_and_that_is_absent(store: Store, pod: Pod) -> None:
    store.put("environments", {"bare/model.py": DOUBLE.encode(), "bare/config.pbtxt": CONFIG.encode()})
    pod.write_secret(store.secret)
    pod.write_manifest(ModelSource(name="m", format="python", storage_uri="s3://environments/bare"))
    pod.start_agent()
    message = pod.until_reason("InvalidConfig").message
    assert message.endswith("requirements.txt: EXECUTION_ENV_PATH names it, and there is no such file. Upload it.")
