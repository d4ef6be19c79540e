"""A user at a cluster: kubectl for what is done, and a proxy of it for what is looked at often."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from conch.api.kinds import Kind

Object = dict[str, Any]
Manifest = Path | Mapping[str, Any] | Sequence[Mapping[str, Any]]

_START_SECONDS = 15


class KubectlError(Exception):
    """A kubectl that failed; its text is what the user would have read."""


class Kube:
    """One cluster, as one kubeconfig reaches it. Usable after `with`."""

    def __init__(self, kubectl: str | Path, kubeconfig: Path | None) -> None:
        self._argv = [str(kubectl), *([f"--kubeconfig={kubeconfig}"] if kubeconfig else [])]
        self._folder = tempfile.TemporaryDirectory(prefix="conch-kube-")
        self._socket = str(Path(self._folder.name) / "api")
        self._proxy: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start the proxy: it brings the kubeconfig's credentials, whatever their kind, to plain HTTP."""
        self._proxy = self.start("proxy", f"--unix-socket={self._socket}")
        deadline = time.monotonic() + _START_SECONDS
        while not Path(self._socket).exists():
            if self._proxy.poll() is not None or time.monotonic() > deadline:
                raise KubectlError("kubectl proxy did not start; does the kubeconfig lead to a cluster?")
            time.sleep(0.02)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._proxy is not None:
            self._proxy.terminate()
            self._proxy.wait(10)
        self._folder.cleanup()

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and return what it printed.

        Raises:
            KubectlError: it failed, with its own words.
        """
        done = subprocess.run(
            [*self._argv, *arguments],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(arguments)[:300]}: {done.stderr.strip()}")
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
        objects = [manifest] if isinstance(manifest, Mapping) else manifest
        # JSON, because kubectl's YAML takes a name like y for a boolean.
        text = "\n---\n".join(json.dumps(each) for each in objects)
        self.run("apply", f"--namespace={namespace}", "--filename=-", stdin=text)

    def delete(self, kind: Kind, namespace: str, name: str) -> None:
        """Delete an object and do not wait for its end; one that is gone already is fine."""
        resource = f"{kind.plural}.{kind.group}" if kind.group else kind.plural
        self.run("delete", resource, name, f"--namespace={namespace}", "--wait=false", "--ignore-not-found")

    def patch(self, kind: Kind, namespace: str, name: str, change: Mapping[str, Any]) -> None:
        """A merge patch, as `kubectl patch` and `kubectl edit` send it."""
        resource = f"{kind.plural}.{kind.group}" if kind.group else kind.plural
        self.run("patch", resource, name, f"--namespace={namespace}", "--type=merge", f"--patch={json.dumps(change)}")

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """Return an object, None if there is none."""
        return self.read(kind.path(namespace, name))

    def list(self, kind: Kind, namespace: str = "", selector: str = "") -> list[Object]:
        """Return the objects of a kind, in a namespace or in all."""
        query = f"?labelSelector={selector.replace('=', '%3D').replace(',', '%2C')}" if selector else ""
        found = self.read(kind.path(namespace) + query)
        return list(found["items"]) if found else []

    def read(self, path: str) -> Object | None:
        """GET a path of the API; None when it is not there.

        Raises:
            KubectlError: the API server answered with something else.
        """
        connection = _UnixConnection(self._socket)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status == http.client.NOT_FOUND:
            return None
        if answer.status != http.client.OK:
            raise KubectlError(f"GET {path}: {answer.status} {body[:300].decode(errors='replace')}")
        found: Object = json.loads(body)
        return found


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket: nobody else on the machine can use the proxy."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
