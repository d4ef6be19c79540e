"""What a release requires: each check raises `ClusterError` with the field, its value and the remedy."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http.client import HTTPException
from typing import Final
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from tests.cluster.errors import ClusterError

_NUMBER: Final = r"(?:0|[1-9][0-9]*)"
# A version of semver.org without build metadata: `+` is not allowed in the tag of an image.
_VERSION: Final = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-(?:alpha|beta|rc)\.{_NUMBER})?")
_REGISTRY: Final = re.compile(r"[a-z0-9.-]+(?::[0-9]+)?(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*")
_LOCAL: Final = ("localhost", "127.0.0.1")
_TIMEOUT: Final = 10.0  # seconds


def check_version(version: str) -> None:
    """Raise unless a version is 1.2.3 or 1.2.3-rc.1 (alpha, beta, rc: those that a wheel's version has too)."""
    if not _VERSION.fullmatch(version):
        raise ClusterError(
            f"VERSION is {version!r}; expected a semantic version such as 1.2.3 or 1.2.3-rc.1.",
            hint="make release VERSION=1.2.3",
        )


def check_registry(registry: str) -> None:
    """Raise unless a registry is written as host/path and its API answers."""
    if not _REGISTRY.fullmatch(registry):
        raise ClusterError(
            f"REGISTRY is {registry!r}; expected host/path in lower case, without a scheme.",
            hint="make release REGISTRY=registry.example.com/conch",
        )
    host = registry.partition("/")[0]
    scheme = "http" if host.partition(":")[0] in _LOCAL else "https"
    try:
        urlopen(f"{scheme}://{host}/v2/", timeout=_TIMEOUT).close()  # noqa: S310 - the scheme is one of two
    except HTTPError as error:
        if error.code in {401, 403}:  # it answers, and has its own login
            return
        reason = f"HTTP {error.code}"
    except (URLError, OSError, HTTPException, UnicodeError) as error:
        reason = str(getattr(error, "reason", error))
    else:
        return
    raise ClusterError(
        f"REGISTRY is {registry!r}; {scheme}://{host}/v2/ does not answer as a registry: {reason}.",
        hint="correct REGISTRY, or leave it out to push nothing",
    )


def check_fragments(fragments: Iterable[str], version: str, changelog: str) -> bool:
    """Return whether the changelog has to be written; raise if it has no section and there are no fragments."""
    if has_section(changelog, version):
        return False
    if not list(fragments):
        raise ClusterError(
            f"changelog.d has 0 fragments and CHANGELOG.md has no section {version}; expected at least 1 fragment.",
            hint="add changelog.d/<issue>.<added|changed|fixed>.md",
        )
    return True


def has_section(changelog: str, version: str) -> bool:
    """Return whether a changelog has the section of a version.

    >>> has_section("## 1.2.3 (2026-01-01)", "1.2.3")
    True
    """
    return bool(release_date(changelog, version))


def release_date(changelog: str, version: str) -> str:
    """Return the date in the title of a version's section, empty if there is none."""
    found = re.search(rf"^## {re.escape(version)} \((\d{{4}}-\d\d-\d\d)\)$", changelog, re.MULTILINE)
    return found[1] if found else ""


def check_tree(changes: Mapping[str, Iterable[str]], version: str, changelog: str) -> None:
    """Raise if the work tree has changes that a first run of the same release did not write.

    Args:
        changes: the lines that were added to each changed file.
        version: the version of the release.
        changelog: CHANGELOG.md. Without the section of `version`, no change is that of a release.
    """
    written = has_section(changelog, version)
    foreign = [name for name, lines in changes.items() if not (written and _is_release(name, lines, version))]
    if foreign:
        raise ClusterError(
            f"The work tree has {len(foreign)} changed file(s): {', '.join(sorted(foreign)[:5])}; expected none.",
            hint="git commit or git stash",
        )


def _is_release(name: str, added: Iterable[str], version: str) -> bool:
    if name == "CHANGELOG.md" or name.startswith("changelog.d/"):
        return True
    lines = list(added)
    return bool(lines) and all(version in line for line in lines)
