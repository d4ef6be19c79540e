"""The HTTP session of calls to the API server, which reads nothing from the environment for each request."""

from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

_BUFFER: Final = 2 << 20  # bytes: objects of a watch have up to 1.5 MiB (kubernetes/kubernetes#19781)


def find_proxy(url: str) -> str | None:
    """Return the proxy that the environment names for a URL (HTTPS_PROXY, HTTP_PROXY, NO_PROXY); None: there is none.

    Args:
        url: The URL of the API server.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # the request reports it
        return None
    proxy = getproxies().get(parts.scheme)
    return proxy if proxy and not proxy_bypass(parts.netloc) else None


def drop_trust(session: aiohttp.ClientSession) -> aiohttp.ClientSession:
    """Return a session with the connections of another one that trusts the environment, and without this trust.

    With it aiohttp reads the variables of proxies and the file ~/.netrc for each request: two thirds of the time of
    a small one.

    Args:
        session: The session, which has no connections then.
    """
    connector = session.connector
    session.detach()
    return aiohttp.ClientSession(connector=connector, read_bufsize=_BUFFER)
