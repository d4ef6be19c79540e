"""Where model files come from: one class a kind of place, chosen by the URI's scheme."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from conch_agent.reasons import Failure, Reason
from conch_agent.settings import Settings
from conch_agent.sources.base import Source, safe_path
from conch_agent.sources.https import HttpsSource
from conch_agent.sources.local import LocalSource
from conch_agent.sources.s3 import S3Source
from conch_agent.sources.s3_settings import KEYS
from conch_agent.sources.storage_secret import read_secret


def open_source(uri: str, settings: Settings) -> Source:
    """Return the source that `uri` names; raises Failure (Unsupported, UnsafePath, SecretMissing, InvalidSecret)."""
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        message = f"{uri} is no URI ({error}): use s3://, https://, pvc:// or file://."
        raise Failure(Reason.UNSUPPORTED, message) from None
    match parts.scheme:
        case "s3":
            return S3Source(uri, secret(settings.storage))
        case "https" | "http":
            return HttpsSource(uri)
        case "pvc":
            claim = settings.pvc / safe_path(parts.netloc, uri)
            path = unquote(parts.path).strip("/")
            return LocalSource(uri, claim / safe_path(path, uri) if path else claim, claim)
        case "file":
            root = Path("/") / safe_path(unquote(parts.path).strip("/"), uri)
            return LocalSource(uri, root, root)
        case _:
            message = f"{uri} has no known scheme: use s3://, https://, pvc:// or file://."
            raise Failure(Reason.UNSUPPORTED, message)


def secret(folder: Path) -> dict[str, str]:
    """Return the text values of the mounted storage Secret; raises Failure (SecretMissing, InvalidSecret)."""
    return read_secret(folder, KEYS)


__all__ = ["Source", "open_source", "secret"]
