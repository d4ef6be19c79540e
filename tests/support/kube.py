"""A user at a cluster: kubectl for what it does itself, kept connections to the API for what it only hands on.

kubectl merges and waits; a read, a merge patch and a deletion are one request, and the program costs more than that.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

from conch.api.kinds import Kind
from tests.support.wait import record_wait

Object = dict[str, Any]
Manifest = Path | Mapping[str, Any] | Sequence[Mapping[str, Any]]
Connect = Callable[[], http.client.HTTPConnection]

SECRET: Final = Kind("", "v1", "Secret", "secrets")
_START_SECONDS: Final = 15
_SECONDS: Final = 30.0  # for one answer of the API server
_WITH_A_NOUN: Final = frozenset({"rollout", "wait", "create", "delete", "get", "scale"})  # the record has both words
_LOST: Final = (http.client.RemoteDisconnected, ConnectionError, ssl.SSLEOFError)


class KubectlError(Exception):
    """A kubectl that failed; its text is what the user would have read."""


class Kube:
    """One cluster, as one kubeconfig reaches it. Usable after `with`."""

    def __init__(self, kubectl: str | Path, kubeconfig: Path | None) -> None:
        self._argv = [str(kubectl), *([f"--kubeconfig={kubeconfig}"] if kubeconfig else [])]
        self._kubeconfig = kubeconfig
        self._open = contextlib.ExitStack()
        self._connect: Connect | None = None
        self._kept = threading.local()  # a connection for each thread

    def __enter__(self) -> Self:
        """Find the way to the API: with the client certificate of the kubeconfig, else through a kubectl proxy."""
        certificate = self._kubeconfig and _with_certificate(self._kubeconfig)
        self._connect = certificate or self._open.enter_context(self._proxy())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    @contextlib.contextmanager
    def _proxy(self) -> Iterator[Connect]:
        """Run a kubectl proxy: it brings the kubeconfig's credentials, whatever their kind, to plain HTTP."""
        with tempfile.TemporaryDirectory(prefix="conch-kube-") as folder:
            path = Path(folder) / "api"
            proxy = self.start("proxy", f"--unix-socket={path}")
            try:
                deadline = time.monotonic() + _START_SECONDS
                while not path.exists():
                    if proxy.poll() is not None or time.monotonic() > deadline:
                        raise KubectlError("kubectl proxy did not start; does the kubeconfig lead to a cluster?")
                    time.sleep(0.02)
                yield lambda: _UnixConnection(str(path))
            finally:
                proxy.terminate()
                proxy.wait(10)

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and return what it printed.

        Raises:
            KubectlError: it failed; the message is its standard error, or its output where that is empty.
        """
        with record_wait(f"kubectl {' '.join(arguments[: 2 if arguments[0] in _WITH_A_NOUN else 1])}"):
            done = subprocess.run(
                [*self._argv, *arguments],
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(arguments)[:300]}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def feed(self, file: Path, *arguments: str) -> bytes:
        """Run kubectl with a file as its input; return what it printed, byte by byte."""
        with file.open("rb") as stream:
            done = subprocess.run([*self._argv, *arguments], stdin=stream, capture_output=True, check=False)
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(arguments)[:300]}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout

    def start(self, *arguments: str, stdout: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        """Start a kubectl that goes on (proxy, port-forward, watch); the caller ends it."""
        return subprocess.Popen(
            [*self._argv, *arguments], stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.DEVNULL
        )

    def apply(self, manifest: Manifest, namespace: str = "default") -> None:
        """`kubectl apply` of a file as it stands, or of objects."""
        if isinstance(manifest, Path):
            self.run("apply", f"--namespace={namespace}", f"--filename={manifest}")
            return
        # JSON, because kubectl's YAML takes a name like y for a boolean; one document, because older kubectls refuse
        # several documents of JSON.
        document = (
            manifest if isinstance(manifest, Mapping) else {"apiVersion": "v1", "kind": "List", "items": manifest}
        )
        self.run("apply", f"--namespace={namespace}", "--filename=-", stdin=json.dumps(document))

    def create(self, kind: Kind, body: Object, namespace: str = "") -> None:
        """Create an object, unless there is one of its name: without a kubectl process, which costs 0.1 s."""
        path = f"{kind.path(namespace)}?fieldManager=kubectl-create"
        whole = {"apiVersion": kind.api_version, "kind": kind.name, **body}
        self._write("POST", path, whole, accepted=http.client.CONFLICT)

    def delete(self, kind: Kind, namespace: str, name: str) -> None:
        """Delete an object as `kubectl delete --wait=false --ignore-not-found` does."""
        options = {"propagationPolicy": "Background"}
        self._write("DELETE", kind.path(namespace, name), options, accepted=http.client.NOT_FOUND)

    def delete_all(self, kind: Kind, namespace: str) -> None:
        """Delete the objects of a kind in a namespace, in one request."""
        self._write("DELETE", kind.path(namespace), {"propagationPolicy": "Background"}, accepted=http.client.NOT_FOUND)

    def patch(self, kind: Kind, namespace: str, name: str, change: Mapping[str, Any]) -> None:
        """A merge patch, as `kubectl patch --type=merge` and `kubectl edit` send it."""
        path = f"{kind.path(namespace, name)}?fieldManager=kubectl-patch"
        self._write("PATCH", path, change, "application/merge-patch+json")

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """Return an object, None if there is none."""
        return self.read(kind.path(namespace, name))

    def list(self, kind: Kind, namespace: str = "", selector: str = "") -> list[Object]:
        """Return the objects of a kind, in a namespace or in all."""
        query = f"?labelSelector={urllib.parse.quote(selector)}" if selector else ""
        found = self.read(kind.path(namespace) + query)
        return list(found["items"]) if found else []

    def read(self, path: str) -> Object | None:
        """GET a path of the API; None when it is not there.

        Raises:
            KubectlError: the API server answered with something else.
        """
        answer, body = self._send("GET", path)
        if answer.status == http.client.NOT_FOUND:
            return None
        if answer.status != http.client.OK:
            raise KubectlError(f"GET {path}: {answer.status} {body[:300].decode(errors='replace')}")
        found: Object = json.loads(body)
        return found

    def _write(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any],
        content_type: str = "application/json",
        *,
        accepted: int = http.client.OK,
    ) -> None:
        """Send a request that changes something; `accepted` is a status that is fine too."""
        with record_wait(f"{method} {path.partition('?')[0]}"):
            answer, content = self._send(method, path, json.dumps(body), {"Content-Type": content_type})
        if answer.status >= http.client.BAD_REQUEST and answer.status != accepted:
            raise KubectlError(f"{method} {path}: {_message(content)}")

    def _send(
        self, method: str, path: str, content: str | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Send a request over this thread's connection; over a new one if the server has closed that meanwhile."""
        assert self._connect is not None, "Kube is usable after `with`"
        kept: http.client.HTTPConnection | None = getattr(self._kept, "connection", None)
        self._kept.connection = None
        for connection in (kept, self._connect()) if kept else (self._connect(),):
            try:
                connection.request(method, path, content, dict(headers or {}))
                answer = connection.getresponse()
                body = answer.read()
            except BaseException as error:
                connection.close()
                if connection is kept and isinstance(error, _LOST):
                    continue
                raise
            self._kept.connection = connection
            return answer, body
        raise AssertionError("not reached: the last connection answers or raises")


def _message(body: bytes) -> str:
    """Return the message of a Status of the API server; what it is if it is no Status."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")


def _with_certificate(kubeconfig: Path) -> Connect | None:
    """Return what connects with the client certificate of a kubeconfig; None if it has none in it."""
    content = yaml.safe_load(kubeconfig.read_text())
    cluster, user = content["clusters"][0]["cluster"], content["users"][0]["user"]
    if not {"client-certificate-data", "client-key-data"} <= user.keys():
        return None
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    context = ssl.create_default_context(cadata=authority)
    with tempfile.NamedTemporaryFile(prefix="conch-kube-") as file:  # ssl reads certificates from files only
        pair = [base64.b64decode(user[f"client-{part}-data"]) for part in ("certificate", "key")]
        file.write(b"\n".join(pair))
        file.flush()
        context.load_cert_chain(file.name)
    server = urllib.parse.urlsplit(cluster["server"])
    return lambda: http.client.HTTPSConnection(server.hostname or "", server.port, timeout=_SECONDS, context=context)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket: no other user of the machine can use the proxy."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
