"""Kubeconfig files. An invalid file is reported in a sentence."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from kubernetes_asyncio import config
from kubernetes_asyncio.client import Configuration

from conch.api.text import clean
from conch.write.errors import CallError

_REMEDY: Final = "name a working one with --kubeconfig and --context, or set KUBECONFIG"
_HOME: Final = "~/.kube/config"


async def load_kubeconfig(configuration: Configuration, named: str | None = None, context: str | None = None) -> str:
    """Read a cluster and its credentials from a kubeconfig; return the namespace of its context.

    Args:
        configuration: to fill in.
        named: one file, or several joined as in KUBECONFIG. None: KUBECONFIG, or the file in the home directory.
        context: a context of it. None: its current one.

    Raises:
        CallError: no file is there, or it cannot be used.
    """
    paths = named or os.environ.get("KUBECONFIG") or _HOME
    _check_all(paths)
    try:
        loader = await config.load_kube_config(paths, context, configuration, persist_config=False)
        found = (loader.current_context or {}).get("context") or {}
    except Exception as error:  # the loader does not validate the file
        raise _build_error(f"the kubeconfig {paths} cannot be used: {_describe_error(error)}") from error
    if not configuration.host:
        raise _build_error(f"the kubeconfig {paths} names no server in the cluster of its context")
    return str(found.get("namespace") or "default")


def _check_all(paths: str) -> None:
    files = [Path(path).expanduser() for path in paths.split(os.pathsep) if path]
    there = [file for file in files if file.exists()]
    if not there:
        raise _build_error(f"there is no kubeconfig {paths}")
    for file in there:
        _check(file)


def _check(file: Path) -> None:
    """Check a file for errors that the loader does not handle.

    Raises:
        CallError: it holds no clusters, contexts and users.
    """
    try:
        read: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise _build_error(f"the kubeconfig {file} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _build_error(f"the kubeconfig {file} is not YAML: {_describe_error(error)}") from error
    if read is None:
        raise _build_error(f"the kubeconfig {file} is empty")
    if not isinstance(read, Mapping):
        raise _build_error(f"the kubeconfig {file} is not a kubeconfig: expected clusters, contexts and users")
    for field in ("clusters", "contexts", "users"):
        entries = read.get(field) or []
        if not isinstance(entries, list) or not all(isinstance(one, Mapping) and "name" in one for one in entries):
            raise _build_error(f"{field} of the kubeconfig {file} is not a list of entries with a name")


def _build_error(what: str) -> CallError:
    return CallError(0, "NoCluster", f"{what}; {_REMEDY}")


def _describe_error(error: Exception) -> str:
    """Return an error of a library on one line, with its type where it has no message."""
    words = clean(" ".join(str(error).split()), 300)
    plain = isinstance(error, (config.ConfigException, yaml.YAMLError, OSError, ValueError))
    return words if words and plain else f"{type(error).__name__} {words}".strip()
