"""Connections to stores: the trusted certificates, and the causes and remedies of failed connections."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final

import aiohttp
from yarl import URL

from conch_agent.sources.answer import to_one_line
from conch_agent.sources.destinations import Destinations, RefusedAddressError
from conch_agent.sources.proxies import Proxy

ISSUER_REMEDY: Final = "Put the issuer's certificate into ca.crt of the storage Secret"
TIMEOUT: Final = 10.0  # seconds in which a connection is complete, TLS included

_SQUID: Final = "X-Squid-Error"
_SCHEME: Final = re.compile(r"(?:^|,)\s*([A-Za-z]+)(?=\s+[^=\s]|\s*,|\s*$)")  # and no parameter

# OpenSSL's codes (x509_vfy.h).
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_UNKNOWN_ISSUER: Final = frozenset({2, 18, 19, 20, 21, 27})
_WRONG_HOST: Final = frozenset({62, 64})
_REVOKED: Final = 23
_PLAIN_TEXT: Final = frozenset(
    {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}
)


@dataclass(frozen=True)
class Problem:
    """The cause of a failed connection.

    Attributes:
        cause: The cause, a sentence without its full stop.
        remedy: The remedy, a sentence without its full stop.
        is_untrusted: True if the certificate of the issuer is the remedy.
        is_unresolved: True if the host name has no address.
        is_plaintext: True if the server answers a TLS handshake without TLS.
    """

    cause: str
    remedy: str
    is_untrusted: bool = False
    is_unresolved: bool = False
    is_plaintext: bool = False


def build_context(authorities: str | None) -> ssl.SSLContext:
    """Return a client's context, which trusts the authorities of the image and the given certificates.

    Args:
        authorities: PEM certificates. Like curl, the context trusts each of them, roots and others.
    """
    context = ssl.create_default_context()
    context.verify_flags &= ~ssl.VerifyFlags.VERIFY_X509_STRICT  # on by default from Python 3.13
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    if authorities:
        context.load_verify_locations(cadata=authorities)
    return context


async def has_tls(host: str, port: int, destinations: Destinations) -> bool:
    """Return True if a server answers a TLS handshake, with any certificate.

    Args:
        host: The address or name.
        port: The port.
        destinations: The addresses to which a connection may be made.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(TIMEOUT):
            address, *_ = await destinations.resolve(host, port)
            _, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname=host)
    except (OSError, TimeoutError, RefusedAddressError):
        return False
    writer.close()
    return True


def explain(error: BaseException, host: str, port: int, proxy: Proxy | None = None) -> Problem:
    """Return the cause of a failed connection.

    Args:
        error: The error, or aiohttp's error that has it as an attribute.
        host: The address or name of the server.
        port: Its port.
        proxy: The proxy between the pod and it; None: there is none.
    """
    if proxy and isinstance(error, aiohttp.ClientHttpProxyError):
        return _explain_refusal(proxy, error, f"{host}:{port}")
    if (
        proxy
        and isinstance(error, aiohttp.ClientConnectorError)
        and (error.host, error.port) == (proxy.host, proxy.port)
    ):
        problem = _explain_connection(error, proxy.host, proxy.port)
        remedy = f"Correct {proxy.key}, or its proxy"
        return Problem(f"its proxy fails: {problem.cause}", remedy, is_untrusted=problem.is_untrusted)
    return name_proxy(_explain_connection(error, host, port), proxy)


def name_proxy(problem: Problem, proxy: Proxy | None) -> Problem:
    """Return a problem with the proxy, which may be its cause.

    Args:
        problem: The problem of a connection.
        proxy: The proxy of the connection; None: there is none.
    """
    if proxy is None:
        return problem
    cause, remedy = f"{problem.cause}, through the proxy {proxy.url}", f"Read the log of the proxy. {problem.remedy}"
    return replace(problem, cause=cause, remedy=remedy)


def _explain_connection(error: BaseException, host: str, port: int) -> Problem:  # noqa: PLR0911  a table: one row, one kind of error
    error = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_certificate(error, host, port)
    where = f"{host}:{port}"
    if isinstance(error, ssl.SSLError):
        if error.reason in _PLAIN_TEXT:
            remedy = "Correct the port, or the scheme of the URL"
            return Problem(f"{where} does not speak TLS", remedy, is_plaintext=True)
        reason = (error.reason or str(error)).replace("_", " ").lower()
        return Problem(f"the TLS handshake with {where} failed ({reason})", "Read the server's log")
    if isinstance(error, socket.gaierror):
        cause = f"the host name {host!r} cannot be resolved ({error.strerror})"
        return Problem(cause, "Correct the host name, or the DNS of the cluster", is_unresolved=True)
    if isinstance(error, ConnectionRefusedError):
        return Problem(f"nothing listens at {where} (connection refused)", "Correct the port, or start the server")
    if isinstance(error, TimeoutError):
        cause = f"no connection to {where} was complete within {TIMEOUT:g} s"
        return Problem(cause, "Check network policies and firewalls between the pod and it, or read the server's log")
    if isinstance(error, ConnectionError):
        return Problem(f"{where} closed the connection", "Read the server's log; does the port expect TLS, or none?")
    if isinstance(error, aiohttp.ClientPayloadError):
        cause = f"{where} ended its answer before it was complete"
        return Problem(cause, "Read the server's log, or that of a proxy before it; the agent retries")
    if isinstance(error, aiohttp.ClientResponseError):  # its text has the URL, which may be signed
        return Problem(f"{where} does not answer in HTTP", "Correct the address, or read the server's log")
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return Problem(f"{where} cannot be reached ({words})", "Check the address, DNS and network policies")


def check_proxy(answer: aiohttp.ClientResponse, proxy: Proxy | None) -> None:
    """Refuse an answer that a proxy has made itself to a request with http://, as aiohttp does of one with https://.

    Other errors, such as 502, may be those of the server.

    Args:
        answer: The answer.
        proxy: The proxy of the request; None: there is none.

    Raises:
        aiohttp.ClientHttpProxyError: It requires a login, or is an error of Squid.
    """
    status = answer.status
    if proxy and (status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED or _SQUID in answer.headers):
        answer.release()
        raise aiohttp.ClientHttpProxyError(
            answer.request_info, (), status=status, message=answer.reason or "", headers=answer.headers
        )


def _explain_refusal(proxy: Proxy, error: aiohttp.ClientHttpProxyError, server: str) -> Problem:
    """Return the cause of an answer of a proxy in place of the server's, whose host and port are given."""
    status = error.status
    cause = f"the proxy {proxy.url} answered HTTP {status} {to_one_line(error.message)[:80]}".rstrip()
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        offered = _find_schemes(error)
        if offered and "basic" not in map(str.lower, offered):
            cause = f"{cause}, and takes logins by {', '.join(offered)}"
            return Problem(cause, "Allow Basic, or the pods without a login, in the proxy: Conch sends no other login")
        verb = "Correct" if proxy.user else "Write"
        return Problem(cause, f"{verb} user and password before the host in {proxy.key}")
    if status < 500:
        return Problem(f"{cause} to a connection to {server}", f"Allow it in the proxy, or add {server} to NO_PROXY")
    return Problem(f"{cause} to a connection to {server}", "Read the log of the proxy; the agent retries")


def _find_schemes(error: aiohttp.ClientHttpProxyError) -> list[str]:
    """Return the schemes of logins that a proxy offers (RFC 9110, section 11.7.1)."""
    offers = error.headers.getall("Proxy-Authenticate", []) if error.headers else []
    return [scheme[:20] for offer in offers[:8] for scheme in _SCHEME.findall(offer)][:8]


def build_options(url: URL, headers: Mapping[str, str], proxy: Proxy | None) -> dict[str, Any]:
    """Return the options of a request for aiohttp. The login (RFC 7617) is for the proxy alone.

    Args:
        url: The URL: a request with http:// is the proxy's own to read, and of one with https:// only the tunnel is.
        headers: Headers for the server.
        proxy: The proxy; None: the request is sent directly.
    """
    options: dict[str, Any] = {"headers": headers, "allow_redirects": False}
    if proxy is None:
        return options
    has_login = proxy.user or proxy.password
    login = {"Proxy-Authorization": aiohttp.encode_basic_auth(proxy.user, proxy.password)} if has_login else {}
    if url.scheme == "https":
        return {**options, "proxy": proxy.url, "proxy_headers": login}
    return {**options, "proxy": proxy.url, "headers": {**headers, **login}}


def _explain_certificate(error: ssl.SSLCertVerificationError, host: str, port: int) -> Problem:
    certificate = f"the certificate of {host}:{port}"
    match error.verify_code:
        case code if code == _EXPIRED:
            return Problem(f"{certificate} has expired", "Renew it, or correct the clock of the node")
        case code if code == _NOT_YET_VALID:
            return Problem(f"{certificate} is not valid yet", "Correct the clock of the node, or of the issuer")
        case code if code == _REVOKED:
            return Problem(f"{certificate} is revoked", "Renew it")
        case code if code in _WRONG_HOST:
            cause = f"{certificate} is for another host, not for {host!r}"
            return Problem(cause, "Write a host name that the certificate has, or issue one for this host")
        case code if code in _UNKNOWN_ISSUER:
            cause = f"{certificate} has an unknown issuer ({error.verify_message})"
            return Problem(cause, "Trust the issuer", is_untrusted=True)
        case _:
            return Problem(f"{certificate} is not valid ({error.verify_message})", "Replace it")
