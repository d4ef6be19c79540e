"""Health checks of components, and waiting until they are healthy: on a condition, with a deadline."""

from __future__ import annotations

import functools
import http.client
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from tests.cluster import processes
from tests.cluster.errors import ClusterError
from tests.cluster.processes import Component, Identity

_TIMEOUT = 2.0
_POLL = 0.1


@functools.cache
def _opener() -> urllib.request.OpenerDirector:
    """Return an opener without a proxy; it accepts any certificate: some components make their own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # the machine's authorities would be read for nothing
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))


def is_healthy(health: str) -> bool:
    """Whether a component is healthy; ``health`` is a URL that answers 200, a unix socket's path, or empty (always)."""
    if not health:
        return True
    try:
        if health.startswith("/"):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(_TIMEOUT)
                client.connect(health)
            return True
        with _opener().open(health, timeout=_TIMEOUT) as answer:
            return bool(answer.status == http.client.OK)
    except (OSError, urllib.error.URLError, http.client.HTTPException):
        return False


def wait_component(component: Component, identity: Identity, timeout: float) -> None:
    """Wait until a component that was just started is well; raises at once when its process ended."""
    deadline = time.monotonic() + timeout
    while not is_healthy(component.health):
        if not processes.is_running(identity):
            message = f"{component.name} ended right after it was started"
            raise ClusterError(message, log=Path(component.log), hint="the log's last lines have the cause")
        if time.monotonic() > deadline:
            message = f"{component.name} was not healthy after {timeout:.0f} s ({component.health})"
            raise ClusterError(message, log=Path(component.log), hint="a slow machine? run up again: it goes on")
        time.sleep(_POLL)


def wait_for(what: str, condition: Callable[[], bool], timeout: float, log: Path | None = None) -> None:
    """Wait until a condition holds; raises, naming ``what`` was awaited, when it does not within ``timeout`` s."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            message = f"waited {timeout:.0f} s for {what}"
            raise ClusterError(message, log=log, hint=".venv/bin/python -m tests.cluster status shows what is not well")
        time.sleep(_POLL)
