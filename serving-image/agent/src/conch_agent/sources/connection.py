"""Connections to stores: the certificates that are trusted, and what a failed connection means for the user."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from dataclasses import dataclass
from typing import Any, Final

from aiohttp.abc import ResolveResult
from aiohttp.resolver import ThreadedResolver

from conch_contract.addresses import check_address

TIMEOUT: Final = 5.0  # seconds

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
    """Why there is no connection: what happened and what to do, two sentences without their full stops.

    `untrusted` is True where another authority's certificate would help.
    """

    what: str
    remedy: str
    untrusted: bool = False


def trust(authorities: str | None) -> ssl.SSLContext:
    """Return the client's context: the machine's authorities, and `authorities` (PEM) beside them.

    A certificate in `authorities` is trusted by itself, whether it is a root or not, as curl trusts it.
    """
    context = ssl.create_default_context()
    context.verify_flags &= ~ssl.VerifyFlags.VERIFY_X509_STRICT  # on by default from Python 3.13
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    if authorities:
        context.load_verify_locations(cadata=authorities)
    return context


class CheckedResolver(ThreadedResolver):
    """Resolves names, but not to addresses that are never asked."""

    async def resolve(self, host: str, *args: Any, **kwargs: Any) -> list[ResolveResult]:
        """Return the addresses of a name; raises ValueError for one that is never asked."""
        found = await super().resolve(host, *args, **kwargs)
        for one in found:
            check_address(one["host"])
        return found


async def check_host(host: str, port: int) -> None:
    """Check an address, or the addresses of a name. What cannot be resolved passes: to connect fails.

    Raises:
        ValueError: one of them is never asked.
    """
    check_address(host)
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(TIMEOUT):
            await CheckedResolver().resolve(host, port, socket.AF_UNSPEC)


async def find_problem(host: str, port: int, context: ssl.SSLContext | None) -> Problem | None:
    """Connect once, with TLS if there is a context, and return why that fails; None if it does not."""
    try:
        async with asyncio.timeout(TIMEOUT):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except (OSError, ssl.SSLError, TimeoutError) as error:
        return explain(error, host, port)
    writer.close()
    return None


async def speaks_tls(host: str, port: int) -> bool:
    """Return True if a server answers a TLS handshake, whatever its certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return await find_problem(host, port, context) is None


def explain(error: BaseException, host: str, port: int) -> Problem:  # noqa: PLR0911  a table: one row, one kind of error
    """Return what an error of a connection to `host` means; aiohttp's errors hold it."""
    error = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_certificate(error, host, port)
    where = f"{host}:{port}"
    if isinstance(error, ssl.SSLError):
        if error.reason in _PLAIN_TEXT:
            return Problem(f"{where} does not speak TLS", "Correct the port, or the scheme of the URL")
        reason = (error.reason or str(error)).replace("_", " ").lower()
        return Problem(f"the TLS handshake with {where} failed ({reason})", "Read the server's log")
    if isinstance(error, socket.gaierror):
        what = f"the host name {host!r} cannot be resolved ({error.strerror})"
        return Problem(what, "Correct the host name, or the DNS of the cluster")
    if isinstance(error, ConnectionRefusedError):
        return Problem(f"nothing listens at {where} (connection refused)", "Correct the port, or start the server")
    if isinstance(error, TimeoutError):
        what = f"{where} does not answer within {TIMEOUT:.0f} s"
        return Problem(what, "Look for a network policy or firewall between the pod and it")
    if isinstance(error, ConnectionError):
        return Problem(f"{where} closed the connection", "Read the server's log; does the port expect TLS, or none?")
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return Problem(f"{where} cannot be reached ({words})", "Check the address, DNS and network policies")


def _explain_certificate(error: ssl.SSLCertVerificationError, host: str, port: int) -> Problem:
    whose = f"the certificate of {host}:{port}"
    match error.verify_code:
        case code if code == _EXPIRED:
            return Problem(f"{whose} has expired", "Renew it, or correct the clock of the node")
        case code if code == _NOT_YET_VALID:
            return Problem(f"{whose} is not valid yet", "Correct the clock of the node, or of whoever issued it")
        case code if code == _REVOKED:
            return Problem(f"{whose} is revoked", "Renew it")
        case code if code in _WRONG_HOST:
            what = f"{whose} is for another host, not for {host!r}"
            return Problem(what, "Write a host name that the certificate has, or issue one for this host")
        case code if code in _UNKNOWN_ISSUER:
            what = f"{whose} has an unknown issuer ({error.verify_message})"
            return Problem(what, "Trust the issuer", untrusted=True)
        case _:
            return Problem(f"{whose} is not valid ({error.verify_message})", "Replace it")
