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


def open_source(uri: str, settings: Settings) -> Source:
    """Return the source that `uri` names; raises Failure (Unsupported, UnsafePath, SecretMissing)."""
    parts = urlsplit(uri)
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
    """Return the mounted Secret: a value for each file (Kubernetes' own dot-files are left out).

    Without storage.secretRef there is no folder; where the Secret that it names is missing, the folder is empty.
    Raises Failure (SecretMissing): going on without credentials would ask the public store of that name.
    """
    if not folder.is_dir():
        return {}
    files = (file for file in folder.iterdir() if not file.name.startswith(".") and file.is_file())
    found = {file.name: file.read_text().strip() for file in files}
    if not found:
        message = (
            "The Secret that storage.secretRef names does not exist, or is empty. Create it in the service's "
            "namespace, with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what else the store needs."
        )
        raise Failure(Reason.SECRET_MISSING, message)
    return found


__all__ = ["Source", "open_source", "secret"]
