"""A proxy for HTTP (proxy.py), as there is one between the pods of many companies and the world."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.serving.processes import Process, until
from tests.support.ports import free_port, listens

LOGIN = "reader:a:b@c"  # a password with the characters that a URL has escaped


class HttpProxy:
    """One that requires a login, and logs the servers to which it has connected."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        options = [f"--port={self.port}", "--hostname=127.0.0.1", f"--basic-auth={LOGIN}"]
        processes = ["--num-workers=1", "--num-acceptors=1", "--threaded", f"--data-dir={folder}"]
        command = [sys.executable, "-m", "proxy", *options, *processes]
        environment = {"PATH": "/usr/bin:/bin", "PYTHONUNBUFFERED": "1", "HOME": str(folder)}
        self.process = Process(command, folder / "proxy.log", environment)
        until(lambda: listens(self.port), "the proxy listens", self.process)

    @property
    def url(self) -> str:
        """Its URL with the login."""
        return f"http://reader:a%3Ab%40c@127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def count(self, port: int) -> int:
        """How many requests or tunnels to a port of this machine it has served."""
        return self.process.log.read_text().count(f"127.0.0.1:{port}")
